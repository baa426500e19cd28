"""Records that should not be there: again, much later again, damaged, of the wrong tenant, too large, of nothing known."""

import asyncio
import json
import random
from collections.abc import Iterator
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from deploy.plan import SERVICES
from tests.faults.registry import case
from tests.faults.world import World

TOPICS = [f"{service}.changes" for service in SERVICES]
_NEWEST = 400  # records of each partition


class Topics:
    """The change topics, as an administrator who means harm."""

    def __init__(self, world: World) -> None:
        self._client = {**world.lab.mesh.broker.client(), "log_level": 0}
        self._producer = Producer({**self._client, "message.max.bytes": 10_000_000, "linger.ms": 5})

    def newest(self, topic: str, count: int) -> Iterator[Any]:
        """The last so many records of each partition."""
        consumer = Consumer({**self._client, "group.id": "mischief", "enable.auto.commit": False, "enable.partition.eof": True})
        try:
            places = []
            for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
                if high > low:
                    places.append(TopicPartition(topic, partition, max(low, high - count)))
            consumer.assign(places)
            left = len(places)
            while left and (message := consumer.poll(10)):
                if message.error():
                    left -= 1
                else:
                    yield message
        finally:
            consumer.close()

    def send(self, topic: str, key: bytes | None, value: bytes | None, partition: int = -1) -> None:
        self._producer.produce(topic, value, key, partition)
        self._producer.poll(0)

    def done(self) -> None:
        assert not self._producer.flush(30)

    def repeat(self, count: int, times: int) -> None:
        for topic in TOPICS:
            for message in list(self.newest(topic, count)):
                for _ in range(times):
                    self.send(topic, message.key(), message.value(), message.partition())
        self.done()


@case("every record of the last moments three times", selected=True)
async def duplicates(world: World) -> None:
    await asyncio.to_thread(Topics(world).repeat, _NEWEST, 2)


@case("all that was ever sent is sent again")
async def replayed(world: World) -> None:
    await asyncio.to_thread(Topics(world).repeat, 1_000_000, 1)


@case("all consumers begin again at the beginning of their topics")
async def offsets_reset(world: World) -> None:
    """Their groups are deleted while they are down."""

    def forget() -> None:
        admin = world.lab.mesh.broker.admin()
        groups = [g.group_id for g in admin.list_consumer_groups().result(10).valid if g.group_id.split(".")[0] in SERVICES]
        for done in admin.delete_consumer_groups(groups).values():
            done.result(10)

    async with world.lab.down(*SERVICES):
        await asyncio.sleep(7)
        await asyncio.to_thread(forget)


@case("damaged records: truncated, wrong tenant, unknown table, unknown fields, null")
async def damaged(world: World) -> None:
    """Between good ones, on the streams of organizations that are in the middle of something."""

    def harm() -> None:
        topics, rng = Topics(world), random.Random(world.load.seed)  # noqa: S311 - which record is damaged
        for topic in TOPICS:
            for message in rng.sample(found := list(topics.newest(topic, 50)), min(20, len(found))):
                for value in _damaged(message.value(), rng):
                    topics.send(topic, message.key(), value, message.partition())
        topics.done()

    await asyncio.to_thread(harm)


def _damaged(value: bytes, rng: random.Random) -> Iterator[bytes | None]:
    record = json.loads(value)
    yield value[: rng.randrange(1, len(value))]
    yield json.dumps(record | {"stream": f"org:{'0' * 8}-0000-4000-8000-{'0' * 12}"}).encode()
    yield json.dumps(record | {"table": "no_such_table"}).encode()
    yield json.dumps(record | {"color": "red", "version": 99}).encode()
    yield None
    yield b"\xff\xfe not even text"


@case("a record of 5 MB on every change topic")
async def giant(world: World) -> None:
    """Kept raw; what is behind it goes on."""

    def harm() -> None:
        admin = world.lab.mesh.broker.admin()
        wider = [
            ConfigResource(
                ResourceType.TOPIC, t, incremental_configs=[ConfigEntry("max.message.bytes", "10000000", incremental_operation=AlterConfigOpType.SET)]
            )
            for t in TOPICS
        ]
        for done in admin.incremental_alter_configs(wider).values():
            done.result(10)
        topics, home = Topics(world), world.load.homes[-1]
        for topic in TOPICS:
            topics.send(topic, f"org:{home.org_id}".encode(), b'{"giant": "' + b"x" * 5_000_000 + b'"}')
        topics.done()

    await asyncio.to_thread(harm)
