"""Nobody is anonymous on the bus, and everybody may do what they need and no more."""

import asyncio
import json
import time

import asyncpg
import psutil
import pytest
import requests
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from deploy.stack import Mesh
from tests.deploy.bus import consumer, pids, write_change

pytestmark = pytest.mark.timeout(300)

_NOT_ALLOWED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)


def reads(mesh: Mesh, user: str, group: str, topic: str) -> bool:
    """True when the user got a message; false when the broker refused."""
    deadline = time.monotonic() + 20
    with consumer(mesh, user, group, topic) as reader:
        while time.monotonic() < deadline:
            message = reader.poll(0.2)
            if message is None:
                continue
            if (error := message.error()) is None:
                return True
            if error.code() in _NOT_ALLOWED:
                return False
    raise AssertionError("neither a message nor a refusal")


def writes(mesh: Mesh, user: str, topic: str) -> bool:
    refused: list[KafkaError] = []
    producer = Producer({**mesh.broker.client(user), "log_level": 0, "message.timeout.ms": 8000})
    producer.produce(topic, key="k", value="{}", on_delivery=lambda error, _: refused.append(error) if error else None)
    producer.flush(10)
    return not refused


def test_kafka_refuses_who_has_no_password(bus: Mesh) -> None:
    anonymous = AdminClient({"bootstrap.servers": bus.broker.bootstrap, "log_level": 0})
    with pytest.raises(KafkaException):
        anonymous.list_topics(timeout=2)
    wrong = AdminClient({**bus.broker.client(), "sasl.password": "wrong", "log_level": 0})
    with pytest.raises(KafkaException):
        wrong.list_topics(timeout=2)


def test_a_service_reads_changes_in_its_own_groups_only(bus: Mesh) -> None:
    write_change(bus, "user:access", "user")
    assert reads(bus, "org", "org", "user.changes")
    assert reads(bus, "org", "org.test", "user.changes")
    assert not reads(bus, "org", "organization", "user.changes")
    assert not reads(bus, "org", "billing", "user.changes")


def test_a_service_writes_nothing_into_kafka(bus: Mesh) -> None:
    assert writes(bus, "admin", "org.changes")
    assert not writes(bus, "org", "org.changes")


def test_an_agent_reports_and_reads_its_assignments_only(bus: Mesh) -> None:
    assert writes(bus, "agent-local", "dataplane.local.reports")
    assert reads(bus, "provisioning", "provisioning", "dataplane.local.reports")
    assert not reads(bus, "org", "org", "dataplane.local.reports")
    assert not writes(bus, "agent-local", "dataplane.local.assignments")
    assert not reads(bus, "agent-local", "agent-local", "user.changes")


def test_the_connect_interface_wants_a_password_and_shows_none(bus: Mesh) -> None:
    connect = bus.status()["connect"]
    login = (connect["username"], connect["password"])
    config = f"{connect['url']}/connectors/mesh-changes/config"
    assert requests.get(config, auth=login, timeout=5).json()["database.password"].startswith("${file:")
    for door in (connect["url"], config):
        assert requests.get(door, timeout=5).status_code == 401
        assert requests.get(door, auth=("mesh", "wrong"), timeout=5).status_code == 401


def test_no_password_is_on_a_command_line_or_in_a_log(bus: Mesh) -> None:
    secrets = json.loads((bus.state.root / "secrets.json").read_text()).values()
    lines = [" ".join(psutil.Process(pid).cmdline()) for pid in pids(bus)]
    logs = [path.read_text(errors="replace") for path in bus.state.log("x").parent.iterdir()]
    assert len(lines) >= 5
    assert [secret for secret in secrets for text in (*lines, *logs) if secret in text] == []


def test_a_service_enters_its_own_database_and_schema_only(bus: Mesh) -> None:
    async def probe() -> None:
        connection = await asyncpg.connect(bus.databases.url("org", "app"))
        assert await connection.fetchval("SELECT count(*) FROM org.streams") >= 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetchval('SELECT count(*) FROM "user".streams')
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CREATE TABLE public.mine (id int)")
        await connection.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(bus.databases.url("org", "app").replace("org_app:", "org_app:x"))

    asyncio.run(probe())
