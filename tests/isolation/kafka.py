"""Kafka as each of its users meets it: what the broker itself says they may do, and whom its doors let in."""

import asyncio
from typing import Any

from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError as ClientError
from aiokafka.errors import NoError, OffsetOutOfRangeError, TopicAuthorizationFailedError
from aiokafka.protocol.admin import CreateTopicsRequest
from aiokafka.protocol.fetch import FetchRequest
from confluent_kafka import KafkaError as BrokerError
from confluent_kafka import KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from deploy import topics as deployed
from deploy.plan import HOST
from tests.mesh import TestMesh

TOPIC_RIGHTS = {AclOperation.READ, AclOperation.WRITE, AclOperation.CREATE, AclOperation.DELETE, AclOperation.ALTER, AclOperation.ALTER_CONFIGS}
"""Those that move or change something; to describe goes with each of them."""


def admin(mesh: TestMesh, user: str) -> AdminClient:
    """To be kept until what it was asked has been answered: with it go the requests that are under way."""
    return AdminClient({**mesh.mesh.broker.client(user), "log_level": 0})


def topics(mesh: TestMesh) -> list[str]:
    return sorted(admin(mesh, "admin").list_topics(timeout=10).topics)


def groups(mesh: TestMesh) -> list[str]:
    administrator = admin(mesh, "admin")
    return sorted(g.group_id for g in administrator.list_consumer_groups(request_timeout=10).result().valid)


def rights_on_topics(mesh: TestMesh, user: str, names: list[str]) -> dict[str, set[str]]:
    """What the broker grants the user on each topic, by the names of the operations; topics with nothing are left out."""
    client = admin(mesh, user)
    found = client.describe_topics(TopicCollection(names), include_authorized_operations=True, request_timeout=10)
    granted = {name: {o.name for o in _operations(future) if o in TOPIC_RIGHTS} for name, future in found.items()}
    return {name: rights for name, rights in granted.items() if rights}


def rights_on_groups(mesh: TestMesh, user: str, names: list[str]) -> set[str]:
    """The consumer groups that the user may join."""
    client = admin(mesh, user)
    found = client.describe_consumer_groups(names, include_authorized_operations=True, request_timeout=10)
    return {name for name, future in found.items() if AclOperation.READ in _operations(future)}


def rights_on_the_cluster(mesh: TestMesh, user: str) -> set[str]:
    client = admin(mesh, user)
    described = client.describe_cluster(include_authorized_operations=True, request_timeout=10).result()
    return {o.name for o in described.authorized_operations or ()} - {"DESCRIBE"}


def _operations(future: Any) -> set[AclOperation]:
    try:
        return set(future.result().authorized_operations or ())
    except KafkaException as error:
        if "AUTHORIZATION_FAILED" not in error.args[0].name():
            raise
        return set()


def refused_writes(mesh: TestMesh, user: str, names: list[str]) -> set[str]:
    """Of these topics, those into which a record of the user was refused for want of the right."""
    refused: set[str] = set()
    producer = Producer({**mesh.mesh.broker.client(user), "log_level": 0, "message.timeout.ms": 10_000})

    def delivered(name: str, error: BrokerError | None) -> None:
        if error and error.code() == BrokerError.TOPIC_AUTHORIZATION_FAILED:
            refused.add(name)

    for name in names:
        producer.produce(name, key="stranger", value="{}", on_delivery=lambda error, _, name=name: delivered(name, error))  # type: ignore[misc]
    producer.flush(12)
    return refused


def readable(mesh: TestMesh, user: str, names: list[str]) -> set[str]:
    """Of these topics, those from which the broker hands records to the user; the others it refuses by name."""
    said = asyncio.run(_fetch(mesh.mesh.broker.port, login(user, mesh.mesh.broker.password(user)), names))
    assert said.keys() == set(names)
    read = {name for name, code in said.items() if code in (NoError.errno, OffsetOutOfRangeError.errno)}
    assert {said[name] for name in said.keys() - read} <= {TopicAuthorizationFailedError.errno}, said
    return read


async def _fetch(port: int, identity: dict[str, str], names: list[str]) -> dict[str, int]:
    """What the broker says to a request for the first record of each topic."""
    connection = await create_conn(HOST, port, request_timeout_ms=15_000, **identity)
    try:
        answer = await connection.send(FetchRequest(0, 0, 1_000_000, 0, [(name, [(0, 0, 1_000)]) for name in names]))
    finally:
        connection.close()
    return {name: code for name, ((_, code, *_), *_) in answer.topics}


async def lets_in(port: int, **identity: str) -> bool:
    """Whether a listener carries out a request of this identity: to make no topic, which broker and controller both know."""
    try:
        connection = await create_conn(HOST, port, request_timeout_ms=5000, **identity)
        try:
            await connection.send(CreateTopicsRequest([], 1000, True))
        finally:
            connection.close()
    except ClientError:
        return False
    return True


def login(user: str, password: str, mechanism: str = "SCRAM-SHA-256") -> dict[str, str]:
    return {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": mechanism, "sasl_plain_username": user, "sasl_plain_password": password}


def users(mesh: TestMesh) -> list[str]:
    """Everybody whom the mesh gave a password for Kafka, but for the administrator and the controller."""
    return deployed.users(mesh.mesh.plan)
