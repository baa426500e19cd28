"""Kafka as each of its users meets it: what the broker itself says they may do, and whom its doors let in."""

import time
from typing import Any

from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError as ClientError
from aiokafka.protocol.admin import CreateTopicsRequest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka import KafkaError as BrokerError
from confluent_kafka.admin import AclOperation, AdminClient

from deploy import topics as deployed
from deploy.plan import HOST
from tests.mesh import TestMesh

TOPIC_RIGHTS = {AclOperation.READ, AclOperation.WRITE, AclOperation.CREATE, AclOperation.DELETE, AclOperation.ALTER, AclOperation.ALTER_CONFIGS}
"""Those that move or change something; to describe goes with each of them."""


def admin(mesh: TestMesh, user: str) -> AdminClient:
    return AdminClient({**mesh.mesh.broker.client(user), "log_level": 0})


def topics(mesh: TestMesh) -> list[str]:
    return sorted(admin(mesh, "admin").list_topics(timeout=10).topics)


def rights_on_topics(mesh: TestMesh, user: str, names: list[str]) -> dict[str, set[str]]:
    """What the broker grants the user on each topic, by the names of the operations; topics with nothing are left out."""
    found = admin(mesh, user).describe_topics(TopicCollection(names), include_authorized_operations=True, request_timeout=10)
    granted = {name: {o.name for o in _operations(future) if o in TOPIC_RIGHTS} for name, future in found.items()}
    return {name: rights for name, rights in granted.items() if rights}


def rights_on_groups(mesh: TestMesh, user: str, names: list[str]) -> set[str]:
    """The consumer groups that the user may join."""
    found = admin(mesh, user).describe_consumer_groups(names, include_authorized_operations=True, request_timeout=10)
    return {name for name, future in found.items() if AclOperation.READ in _operations(future)}


def rights_on_the_cluster(mesh: TestMesh, user: str) -> set[str]:
    described = admin(mesh, user).describe_cluster(include_authorized_operations=True, request_timeout=10).result()
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


def readable(mesh: TestMesh, user: str, group: str, names: list[str]) -> set[str]:
    """Of these topics, those of which the user gets records or the end; the others are refused."""
    settings = {"group.id": group, "enable.auto.commit": False, "enable.partition.eof": True, "log_level": 0}
    reader = Consumer({**mesh.mesh.broker.client(user), **settings})
    got: dict[str, bool] = {}
    try:
        reader.assign([TopicPartition(name, 0, OFFSET_BEGINNING) for name in names])
        deadline = time.monotonic() + 15
        while got.keys() < set(names):
            assert time.monotonic() < deadline, f"neither records nor refusals: {set(names) - got.keys()}"
            message = reader.poll(0.2)
            error = message.error() if message else None
            if message:
                got[str(message.topic())] = error is None or error.code() == BrokerError._PARTITION_EOF
    finally:
        reader.close()
    return {name for name, yes in got.items() if yes}


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
