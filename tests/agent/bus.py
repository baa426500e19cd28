"""A real agent process on a real broker, spoken to through its topics alone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, NewTopic, ResourcePatternType, ResourceType

from deploy import jars, kafka, process, topics
from deploy.kafka import Broker
from deploy.plan import Plan, with_ports
from deploy.state import State
from schemas.feed import agent_user
from services.agent.inbox import Record
from tests.agent.server import Server
from tests.agent.world import ASSIGNMENTS

PLANE = "local"


class OwnBroker:
    """The mesh's own broker with its users, rights and topics, and nothing else of a mesh: that is all an agent needs of one."""

    def __init__(self, folder: Path) -> None:
        self.state = State(folder)
        self.plan = with_ports(Plan(services=(), data_planes=(PLANE,)), 0)
        self.broker = Broker.of(self.state, self.plan)
        self._running: process.Running | None = None

    def start(self) -> None:
        jars.fetch()
        self.broker.prepare()
        self._running = process.start(self.state, self.broker.command())
        admin, end = self.broker.admin(), time.monotonic() + 60
        while not kafka.answers(admin):
            assert time.monotonic() < end, self.state.log(kafka.NAME).read_text()[-2000:]
            time.sleep(0.05)
        topics.ensure_users(admin, self.broker, self.plan)
        topics.ensure_topics(admin, self.plan)

    def kill(self) -> None:
        if self._running:
            process.stop([self._running], signal.SIGKILL, grace=10)
            self._running = None


class Bus:
    """The control plane's end of the topics of one data plane."""

    def __init__(self, broker: Broker) -> None:
        self.admin = broker.admin()
        self._producer = Producer({**broker.client(), "linger.ms": 0, "log_level": 0})
        self._consumer = Consumer({**broker.client(), "group.id": "test", "log_level": 0, "enable.auto.commit": False, "auto.offset.reset": "earliest"})
        self._consumer.subscribe([f"dataplane.{PLANE}.reports"])
        self.messages: list[dict[str, Any]] = []

    def close(self) -> None:
        self._consumer.close()

    def say(self, *records: Record) -> None:
        refused: list[object] = []
        for record in records:
            topic = f"dataplane.{PLANE}.assignments" if record.topic == ASSIGNMENTS else record.topic
            self._producer.produce(topic, value=record.value, key=record.key, on_delivery=lambda error, _: refused.append(error) if error else None)
        assert self._producer.flush(10) == 0
        assert refused == []

    def make_topic(self, topic: str, *, granted: bool = True) -> None:
        for made in self.admin.create_topics([NewTopic(topic, 1, 1, config={"cleanup.policy": "compact"})]).values():
            made.result(10)
        if granted:
            self.grant(topic)

    def grant(self, topic: str) -> None:
        user = f"User:{agent_user(PLANE)}"
        bindings = [
            AclBinding(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, user, "*", operation, AclPermissionType.ALLOW)
            for operation in (AclOperation.READ, AclOperation.DESCRIBE)
        ]
        for granted in self.admin.create_acls(bindings).values():
            granted.result(10)

    def until(self, found: Callable[[dict[str, Any]], object], seconds: float = 30) -> dict[str, Any]:
        """The first message, of those not asked about before, that is what is looked for."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            message = self._consumer.poll(0.2)
            if message is None or message.error() or message.value() is None:
                continue
            heard: dict[str, Any] = json.loads(message.value() or b"")
            self.messages.append(heard)
            if found(heard):
                return heard
        raise AssertionError("no such report in time")

    def until_state(self, resource: UUID, state: str, seconds: float = 30) -> dict[str, Any]:
        """The observation of a resource in that state."""
        report = self.until(lambda one: (seen := observed(one, resource)) and seen["state"] == state, seconds)
        return observed(report, resource) or {}


def observed(message: dict[str, Any], resource: UUID) -> dict[str, Any] | None:
    return next((one for one in message.get("resources", []) if one["resource"] == str(resource)), None)


class AgentProcess:
    def __init__(self, broker: Broker, server: Server, folder: Path) -> None:
        user = agent_user(PLANE)
        self._environment = {
            "PATH": os.environ["PATH"], "AGENT_STATE_DIR": str(folder / "agent state"),
            "DATA_PLANE_ID": PLANE, "DATA_PLANE_URL": server.url, "DATA_PLANE_HOST": server.host, "DATA_PLANE_PORT": str(server.port),
            "KAFKA_BOOTSTRAP": broker.bootstrap, "KAFKA_USERNAME": user, "KAFKA_PASSWORD": broker.password(user),
            "AGENT_START_JITTER": "0", "AGENT_RECONCILE_EVERY": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        }  # fmt: skip
        self.log = folder / "agent.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-m", "services.agent.main"], env=self._environment, stdout=log, stderr=log)

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Its exit code, and how long it took."""
        assert self._process is not None
        start = time.monotonic()
        self._process.send_signal(number)
        code = self._process.wait(10)
        return code, time.monotonic() - start

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid
