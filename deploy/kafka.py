"""Runs the Kafka broker: one KRaft node on loopback that nobody enters anonymously."""

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
ADMIN = "admin"
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
    port: int
    controller_port: int

    @classmethod
    def of(cls, state: State, plan: Plan) -> "Broker":
        return cls(state, plan.ports["kafka"], plan.ports["kafka-controller"])

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.port}"

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
        write_atomically(self._properties, self._render(self.state.kafka_data))
        if self.state.kafka_data.exists():
            return False
        with tempfile.TemporaryDirectory(dir=self.state.root, prefix="kafka-") as folder:
            draft = Path(folder) / "data"
            config = Path(folder) / "kafka.properties"
            write_atomically(config, self._render(draft))
            scram = f'SCRAM-SHA-256=[name="{ADMIN}",password="{self.password(ADMIN)}"]'
            arguments = ["format", "-t", _cluster_id(self.state), "-c", str(config), "--standalone", "--add-scram", scram]
            java.run_once(self.state, "kafka-format", "kafka.tools.StorageTool", arguments)
            draft.rename(self.state.kafka_data)
        return True

    def _render(self, data: Path) -> str:
        values: dict[str, str | int] = {
            "host": HOST, "port": self.port, "controller_port": self.controller_port, "data": str(data),
            "admin_password": self.password(ADMIN), "controller_password": self.password("controller"),
        }  # fmt: skip
        return properties(_TEMPLATE, values)

    def command(self) -> Command:
        options = ["-Xms128m", "-Xmx384m"]
        argv = java.command(self.state, NAME, "kafka.Kafka", options, [str(self._properties)])
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
