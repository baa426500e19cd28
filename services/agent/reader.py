"""One Kafka consumer over topics that come and go, each read from where the agent says."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from services.agent.backoff import Backoff
from services.agent.inbox import Listener, Record
from shared.log import log

METADATA_SECONDS = 1.0
"""How long the consumer may take to learn of a topic that joins."""

Positions = dict[TopicPartition, int]


class Reader:
    """Positions live here, not in Kafka: state is read from the beginning at each start.

    ``max_wait_ms`` is how long the broker holds an idle fetch. Records of topics already read come at once in any case, but a
    topic that joins waits for the fetch under way, as a broker answers one request of a connection after the other.
    """

    def __init__(self, access: dict[str, Any], max_wait_ms: int, listener: Listener, lost: Callable[[str], None]) -> None:
        self._access = access
        self._max_wait_ms = max_wait_ms
        self._listener = listener
        self._lost = lost
        self._positions: Positions = {}
        self._joined = 0.0
        self._assigned = asyncio.Event()
        self._consumer: AIOKafkaConsumer | None = None

    @property
    def topics(self) -> set[str]:
        return {partition.topic for partition in self._positions}

    def join(self, positions: Positions) -> None:
        """Read these from these positions on; what is read already goes on where it is."""
        self._positions |= positions
        self._assign()

    def leave(self, topics: set[str]) -> Positions:
        """Read these no more; where they were."""
        left = {partition: at for partition, at in self._positions.items() if partition.topic in topics}
        if left:
            self._positions = {partition: at for partition, at in self._positions.items() if partition not in left}
            self._assign()
        return left

    def _assign(self) -> None:
        if self._positions:
            self._assigned.set()
        else:
            self._assigned.clear()
        self._joined = time.monotonic()
        if self._consumer is not None:
            self._consumer.assign(list(self._positions))
            for partition, at in self._positions.items():
                self._consumer.seek(partition, at)

    async def run(self) -> None:
        """Until cancelled; through any trouble with Kafka."""
        backoff = Backoff(0.2, 2)
        while True:
            consumer = AIOKafkaConsumer(
                **self._access,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=self._max_wait_ms,
                retry_backoff_ms=200,
            )
            try:
                await consumer.start()
                self._consumer = consumer
                self._assign()
                backoff.reset()
                await self._read(consumer)
            except (KafkaError, OSError) as error:
                pause = backoff.wait()
                log.warning("reading from Kafka failed, again in %.1f s: %s", pause, type(error).__name__)
                await asyncio.sleep(pause)
            finally:
                self._consumer = None
                with contextlib.suppress(KafkaError, OSError, TimeoutError):
                    await asyncio.wait_for(consumer.stop(), 1)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            await self._assigned.wait()
            try:
                batches = await consumer.getmany(timeout_ms=1000)
            except TopicAuthorizationFailedError as error:
                self._drop({error.args[0]})
                continue
            records = []
            for partition, batch in batches.items():
                if batch and partition in self._positions:
                    self._positions[partition] = batch[-1].offset + 1
                    records += [Record(partition.topic, one.offset, one.key, one.value) for one in batch]
            if records:
                self._listener(records)
            elif time.monotonic() - self._joined > METADATA_SECONDS:
                self._drop({topic for topic in self.topics if not consumer.partitions_for_topic(topic)})

    def _drop(self, topics: set[str]) -> None:
        """Out at once: a topic without a leader would have the client ask for metadata without a pause."""
        self.leave(topics)
        for topic in topics:
            self._lost(topic)
