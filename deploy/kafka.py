"""Runs the Kafka broker: one KRaft node that nobody enters anonymously."""

import base64
import itertools
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid5

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy import java
from deploy.plan import HOST, Plan
from deploy.process import Command
from deploy.state import State, write_atomically

NAME = "kafka"
FORMAT = "kafka.tools.StorageTool"
HEAP = ("-Xms128m", "-Xmx384m")
ADMIN = "admin"
OUTSIDE = "kafka-outside"
_TEMPLATE = Path(__file__).parent / "config" / "kafka.properties"
_CLUSTERS = UUID("6f5a4ef8-3df7-4c42-9d2d-7b5c5b7de0d3")


def properties(template: Path, values: Mapping[str, str | int]) -> str:
    """A Java properties file from its template: ``{name}`` is replaced, and whatever Java would misread is escaped."""

    def escaped(match: re.Match[str]) -> str:
        value = str(values[match[1]]).replace("\\", "\\\\")
        return "".join(c if 32 <= ord(c) < 127 else f"\\u{ord(c):04x}" for c in value)

    return re.sub(r"\{(\w+)\}", escaped, template.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Broker:
    state: State
    host: str
    port: int
    controller_port: int
    outside_port: int | None = None
    """Where clients on the machine around its container come in; they are told to come to loopback."""

    @classmethod
    def of(cls, state: State, plan: Plan) -> "Broker":
        return cls(state, plan.host("kafka"), plan.ports["kafka"], plan.ports["kafka-controller"], plan.ports.get(OUTSIDE))

    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.port}"

    def password(self, user: str) -> str:
        return self.state.secret(f"kafka:{user}")

    def client(self, user: str = ADMIN) -> dict[str, str]:
        """What a client of librdkafka needs to connect as ``user``."""
        return {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": user,
            "sasl.password": self.password(user),
        }

    @property
    def _properties(self) -> Path:
        return self.state.rendered("kafka.properties")

    def prepare(self) -> bool:
        """Write the configuration and format the storage; true when it is new, so that all it knew is gone."""
        write_atomically(self._properties, self.properties(self.state.kafka_data))
        if self.state.kafka_data.exists():
            return False
        with tempfile.TemporaryDirectory(dir=self.state.root, prefix="kafka-") as folder:
            draft = Path(folder) / "data"
            config = Path(folder) / "kafka.properties"
            write_atomically(config, self.properties(draft))
            java.run_once(self.state, "kafka-format", FORMAT, self.format_arguments(config))
            draft.rename(self.state.kafka_data)
        return True

    def format_arguments(self, config: Path) -> list[str]:
        """What the storage tool is told: the administrator has to be there before anybody can make users."""
        scram = f'SCRAM-SHA-256=[name="{ADMIN}",password="{self.password(ADMIN)}"]'
        return ["format", "-t", _cluster_id(self.state), "-c", str(config), "--standalone", "--add-scram", scram]

    def properties(self, data: Path) -> str:
        """The broker's configuration, with its data in that folder."""
        doors = {"CLIENT": (self.host, self.port)} | ({"OUTSIDE": (HOST, self.outside_port)} if self.outside_port else {})
        values: dict[str, str | int] = {
            "listeners": ",".join(f"{name}://{self.host}:{port}" for name, (_, port) in doors.items()),
            "advertised": ",".join(f"{name}://{host}:{port}" for name, (host, port) in doors.items()),
            "host": self.host, "controller_port": self.controller_port, "data": str(data),
            "admin_password": self.password(ADMIN), "controller_password": self.password("controller"),
        }  # fmt: skip
        return properties(_TEMPLATE, values)

    def command(self) -> Command:
        argv = java.command(self.state, NAME, "kafka.Kafka", list(HEAP), [str(self._properties)])
        return Command(NAME, argv, java.environment(), folder=self.state.root)

    def admin(self) -> AdminClient:
        quiet = {"reconnect.backoff.max.ms": 200, "log_level": 0, "socket.timeout.ms": 5000}
        return AdminClient({**self.client(), **quiet})


def answers(admin: AdminClient) -> bool:
    try:
        return bool(admin.list_topics(timeout=1).brokers)
    except KafkaException:
        return False


def _cluster_id(state: State) -> str:
    """The same for the same state folder, so that clients are not surprised by a broker that had to be made anew.

    Never one with a dash in front, which Kafka's tool would take for an option.
    """
    ids = (base64.urlsafe_b64encode(uuid5(_CLUSTERS, state.key + "again" * n).bytes).decode().rstrip("=") for n in itertools.count())
    return next(one for one in ids if not one.startswith("-"))
