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
from faststream.kafka import KafkaBroker
from pydantic import SecretStr

from deploy.status import Document
from shared import consumer
from shared.bus import Applier
from shared.consumer import ChangeConsumer, Consumer, kafka_broker
from shared.settings import Settings, settings
from tests.kit.conftest import Log, Probe, record


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
def access(ground: Document) -> dict[str, str]:
    admin = ground["kafka"]["admin"]
    return {
        "bootstrap.servers": ground["kafka"]["bootstrap"], "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": admin["username"], "sasl.password": admin["password"],
    }  # fmt: skip


@pytest.fixture
async def topic(access: dict[str, str]) -> AsyncIterator[str]:
    async with existing(f"probe.{uuid.uuid4().hex}", access) as name:
        yield name


another_topic = topic


@asynccontextmanager
async def existing(topic: str, access: dict[str, str]) -> AsyncIterator[str]:
    admin = AdminClient(access)
    await asyncio.to_thread(admin.create_topics([NewTopic(topic, 1, 1)])[topic].result)
    try:
        yield topic
    finally:
        await asyncio.to_thread(admin.delete_topics([topic])[topic].result)


def broker_for(access: dict[str, str]) -> KafkaBroker:
    here = Settings(kafka_bootstrap=access["bootstrap.servers"], kafka_username=access["sasl.username"], kafka_password=SecretStr(access["sasl.password"]))
    return kafka_broker(here, "probe")


@asynccontextmanager
async def reading(probe: Probe, access: dict[str, str], group: str, *topics: str) -> AsyncIterator[Reader]:
    broker = broker_for(access)
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


async def test_what_was_announced_and_waits_in_kafka_is_not_asked_for(probe: Probe, log: Log, access: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads may be read long before the partition that they speak of."""
    monkeypatch.setattr(consumer, "MAX_RECORDS", 50)
    async with existing("other.changes", access) as topic:
        send, broker = Producer(access), broker_for(access)
        for value in range(1, 501):
            send.produce(topic, log.change(value).raw, log.stream)
        send.flush()
        await probe.admin.execute("INSERT INTO probe.expected (reader, source, stream, seq) VALUES ('reactions', 'other', 'org:of-another', 7)")
        ChangeConsumer(broker, await probe.applier(record), [topic])
        await broker.start()
        try:
            async with asyncio.timeout(20):
                while await probe.position(log) < 500:  # noqa: ASYNC110 - it is moved in the database, which tells nobody
                    await asyncio.sleep(0.05)
        finally:
            await broker.stop()
    assert await probe.admin.fetchval("DELETE FROM probe.expected WHERE stream = 'org:of-another' RETURNING postponed_at IS NOT NULL")
