"""The consumer goes on reading whatever happens to the Kafka client beneath it."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiokafka import ConsumerRecord
from aiokafka.client import AIOKafkaClient
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from pydantic import SecretStr

from shared.bus import Applier
from shared.consumer import Consumer, kafka_broker
from shared.settings import Settings, settings
from tests.kit.conftest import Probe
from tests.mesh import TestMesh


class Reader(Consumer):
    """Keeps the values it was handed; one whose offset was not committed yet may come twice."""

    values: list[bytes | None]
    more: asyncio.Event

    async def _take(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> None:
        self.values += [r.value for r in records]
        self.more.set()

    async def has_read(self, *values: bytes) -> None:
        async with asyncio.timeout(20):
            while list(dict.fromkeys(self.values)) != list(values):
                await self.more.wait()
                self.more.clear()


@pytest.fixture
def access(mesh: TestMesh) -> dict[str, str]:
    admin = mesh.status["kafka"]["admin"]
    return {
        "bootstrap.servers": mesh.status["kafka"]["bootstrap"], "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": admin["username"], "sasl.password": admin["password"],
    }  # fmt: skip


@pytest.fixture
async def topic(access: dict[str, str]) -> AsyncIterator[str]:
    name, admin = f"probe.{uuid.uuid4().hex}", AdminClient(access)
    await asyncio.to_thread(admin.create_topics([NewTopic(name, 1, 1)])[name].result)
    yield name
    await asyncio.to_thread(admin.delete_topics([name])[name].result)


another_topic = topic


@asynccontextmanager
async def reading(probe: Probe, access: dict[str, str], group: str, *topics: str) -> AsyncIterator[Reader]:
    access_settings = Settings(
        kafka_bootstrap=access["bootstrap.servers"], kafka_username=access["sasl.username"], kafka_password=SecretStr(access["sasl.password"])
    )
    broker = kafka_broker(access_settings, "probe")
    reader = Reader(broker, Applier(probe.database, [], {}), group, topics)
    reader.values, reader.more = [], asyncio.Event()
    keeping = asyncio.create_task(reader.keep_reading())
    await broker.start()
    yield reader
    keeping.cancel()
    await broker.stop()


@pytest.fixture
async def reader(probe: Probe, access: dict[str, str], topic: str) -> AsyncIterator[Reader]:
    async with reading(probe, access, topic, topic) as reader:
        yield reader


async def test_a_replica_that_is_started_again_with_one_topic_more_reads_that_too(
    probe: Probe, access: dict[str, str], topic: str, another_topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka gives back a place in a group with its old partitions, whatever whoever takes it reads now."""
    monkeypatch.setenv("KAFKA_INSTANCE", "probe")
    settings.cache_clear()
    try:
        send = Producer(access)
        async with reading(probe, access, topic, topic) as before:
            send.produce(topic, b"before")
            send.flush()
            await before.has_read(b"before")
        async with reading(probe, access, topic, topic, another_topic) as after:
            send.produce(another_topic, b"after")
            send.flush()
            async with asyncio.timeout(20):
                while b"after" not in after.values:
                    await after.more.wait()
                    after.more.clear()
    finally:
        settings.cache_clear()


async def test_a_client_that_gave_up_is_replaced_and_nothing_is_missed(
    reader: Reader, topic: str, access: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that the client does not expect ends its membership for good: every later read repeats it."""
    producer = Producer(access)
    producer.produce(topic, b"before")
    producer.flush(10)
    await reader.has_read(b"before")

    async def broken(*_: object) -> None:
        raise RuntimeError("the transport is closed")

    with monkeypatch.context() as patched:
        patched.setattr(AIOKafkaClient, "coordinator_lookup", broken)
        reader._subscriber.consumer._coordinator.coordinator_dead()
        async with asyncio.timeout(10):
            await reader._given_up.wait()
    producer.produce(topic, b"after")
    producer.flush(10)
    await reader.has_read(b"before", b"after")
