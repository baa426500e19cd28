"""Reads the change topics: FastStream hands over raw batches, the applier commits their effects, Kafka offsets follow lazily.

The offset committed to Kafka is a hint that saves re-reading; what was applied is known by the positions alone.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any
from zlib import crc32

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.helpers import create_ssl_context
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage
from faststream.security import SASLScram256

from shared import healing
from shared.bus import Applier
from shared.changes import Change, Undecodable, decode
from shared.failpoints import failpoint
from shared.listening import Listener, Record
from shared.log import log
from shared.metrics import metrics
from shared.positions import READERS
from shared.settings import Settings, settings
from shared.tx import DatabaseAway

MAX_RECORDS = 2000
LISTENING_AT_ONCE = 4


def kafka_broker(settings: Settings, service: str) -> KafkaBroker:
    """A FastStream broker as this service's own SCRAM user."""
    ssl = create_ssl_context() if settings.kafka_security_protocol == "SASL_SSL" else None
    security = SASLScram256(settings.kafka_username, settings.kafka_password.get_secret_value(), ssl_context=ssl, use_ssl=bool(ssl))
    return KafkaBroker(settings.kafka_bootstrap, security=security, client_id=f"mesh-{service}", apply_types=False, logger=None)


def _source_of(topic: str) -> str:
    """The service whose changes a topic carries."""
    return topic.removesuffix(".changes")


class _Joined(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Whether this replica belongs to its group. One without partitions is a working spare."""

    def __init__(self) -> None:
        self.yes = False

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Nothing to hand over: positions are in the database."""

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:  # noqa: ARG002 - aiokafka's signature
        self.yes = True


def _place(topics: Iterable[str]) -> str | None:
    """This replica's own place in a group, if it has one. Other topics, another place: whoever takes an old place again gets the partitions
    that belong to it from Kafka, without being asked which topics it reads now.
    """
    instance = settings().kafka_instance
    return f"{instance}-{crc32(' '.join(sorted(topics)).encode()):08x}" if instance else None


class Consumer:
    """One consumer group over some topics, handing over batches of raw records."""

    def __init__(self, broker: KafkaBroker, applier: Applier, group: str, topics: Sequence[str]) -> None:
        self.applier = applier
        self._committed_at = 0.0
        self.joined = _Joined()
        for topic in topics:
            metrics.undecodable.labels(topic)
        self._subscriber = broker.subscriber(
            *topics,
            group_id=group,
            group_instance_id=_place(topics),
            batch=True,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.MANUAL,
            session_timeout_ms=6000,
            heartbeat_interval_ms=1000,
            max_poll_interval_ms=3_600_000,
            fetch_max_wait_ms=500,
            fetch_max_bytes=16 * 1024 * 1024,
            max_partition_fetch_bytes=1024 * 1024,  # the client hands over one partition's fetch after the other: so they stay side by side
            listener=self.joined,
            parser=self._parse,
            decoder=self._decode,
        )
        self._subscriber(self.handle)
        self._subscriber.get_msg = self._poll  # type: ignore[method-assign]
        self._given_up = asyncio.Event()

    async def _poll(self, consumer: AIOKafkaConsumer) -> tuple[ConsumerRecord[bytes, bytes], ...]:
        """Reads on at once when nothing came, where FastStream's own sleeps as long again. A client that has given up is noticed here."""
        try:
            batches = await consumer.getmany(timeout_ms=500, max_records=MAX_RECORDS)
            if not batches:
                await asyncio.sleep(0.005)  # a client that is being closed answers at once
            return tuple(chain.from_iterable(batches.values()))
        except KafkaError as error:
            log.error("the Kafka client has given up, reading begins anew", extra={"topics": self._subscriber.topics, "error": repr(error)})
            self._given_up.set()
            raise

    async def keep_reading(self) -> None:
        """Begins anew for ever whenever the Kafka client has given up: what it passes on instead of retrying it repeats at every read."""
        while True:
            await self._given_up.wait()
            self.joined.yes = False
            metrics.readings_begun_anew.inc()
            try:
                async with asyncio.timeout(30):
                    await self._subscriber.stop()
                    await self._subscriber.start()
            except Exception as error:  # noqa: BLE001 - whatever keeps it away, it is tried again
                log.warning("reading cannot begin anew yet", extra={"error": repr(error)})
                await asyncio.sleep(1)
            else:
                self._given_up.clear()

    async def _parse(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> KafkaAckableMessage:
        return KafkaAckableMessage(raw_message=tuple(records), body=tuple(records), consumer=self._subscriber.consumer)

    @staticmethod
    async def _decode(message: KafkaAckableMessage) -> Any:
        return message.body

    async def handle(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> None:
        """Takes one batch; returns only when nothing of it can be lost."""
        if records:
            await self._take(records)
            failpoint("offset")
            await self._commit_lazily()

    async def _take(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> None:
        raise NotImplementedError

    async def _keep_raw(self, record: ConsumerRecord[bytes, bytes], reason: str) -> None:
        log.error("a record cannot be used and is kept raw", extra={"topic": record.topic, "offset": record.offset, "reason": reason})
        metrics.undecodable.labels(record.topic).inc()
        await self.applier.keep_undecodable(record.topic, record.partition, record.offset, record.key, record.value, reason)

    async def _commit_lazily(self) -> None:
        if time.monotonic() - self._committed_at < 1.0 or self._subscriber.consumer is None:
            return
        self._committed_at = time.monotonic()
        try:
            await asyncio.wait_for(self._subscriber.consumer.commit(), timeout=5)
        except Exception as error:  # noqa: BLE001 - the offset is a hint: positions decide, and a rebalance makes this normal
            log.info("the offset hint was not committed", extra={"error": repr(error)})


class ChangeConsumer(Consumer):
    """One consumer group a service over the change topics of all services."""

    def __init__(self, broker: KafkaBroker, applier: Applier, topics: Sequence[str]) -> None:
        super().__init__(broker, applier, applier.service, topics)
        self._postponed_at = 0.0

    async def _take(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> None:
        changes = []
        for record in records:
            change = await self._read(record)
            if change:
                changes.append(change)
        if changes:
            await self.applier.apply(changes)
            now = datetime.now(UTC)
            for c in (changes[0], changes[-1]):
                metrics.change_delay.labels(c.source).observe(max(0.0, (now - c.at).total_seconds()))
            await self._postpone_while_behind()

    async def _postpone_while_behind(self) -> None:
        """What waits in Kafka is not missing: as long as more than a batch does, announced heads of its source are not asked for."""
        if time.monotonic() - self._postponed_at < 1.0:
            return
        self._postponed_at = time.monotonic()
        with contextlib.suppress(DatabaseAway, KafkaError, TimeoutError):
            async with asyncio.timeout(1):
                behind = await self._behind()
            if behind:
                await healing.postpone_expected(self.applier.database, sorted(behind))

    async def _behind(self) -> set[str]:
        """The sources of which more than a batch waits."""
        consumer = self._subscriber.consumer
        if consumer is None:  # reading ends, or begins anew
            return set()
        waiting = {p: (consumer.highwater(p) or 0) - await consumer.position(p) for p in consumer.assignment()}
        return {_source_of(partition.topic) for partition, records in waiting.items() if records > MAX_RECORDS}

    async def _read(self, record: ConsumerRecord[bytes, bytes]) -> Change | None:
        source = _source_of(record.topic)
        stream = (record.key or b"").decode(errors="replace")
        if stream and not any(self.applier.follows(reader, source, stream) for reader in READERS):
            return None
        try:
            change = decode(source, record.value)
            if stream and stream != change.stream:
                raise Undecodable(f"the key says {stream!r}, the record {change.stream!r}")
        except Undecodable as error:
            await self._keep_raw(record, str(error))
            return None
        return change


class ListeningConsumer(Consumer):
    """One consumer group over the topics of a listener. Records of one key are heard in order, keys side by side."""

    def __init__(self, broker: KafkaBroker, applier: Applier, listener: Listener, topics: Sequence[str]) -> None:
        super().__init__(broker, applier, listener.name, topics)
        self._listener = listener
        self._slots = asyncio.Semaphore(LISTENING_AT_ONCE)

    async def _take(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> None:
        by_key: dict[tuple[str, bytes | None], list[ConsumerRecord[bytes, bytes]]] = defaultdict(list)
        for record in records:
            by_key[record.topic, record.key].append(record)
        await asyncio.gather(*(self._hear_all(same_key) for same_key in by_key.values()))

    async def _hear_all(self, records: Iterable[ConsumerRecord[bytes, bytes]]) -> None:
        async with self._slots:
            for record in records:
                await self._hear(record)

    async def _hear(self, record: ConsumerRecord[bytes, bytes], wait: float = 0.05) -> None:
        while True:
            try:
                await self._listener.function(self.applier.database, Record(record.topic, record.key, record.value))
            except DatabaseAway as error:
                log.warning("the database is away or busy, listening again", extra={"listener": self._listener.name, "error": repr(error), "wait": wait})
                metrics.transient_retries.inc()
                await asyncio.sleep(wait)
                wait = min(wait * 2, 2)
            except Undecodable as error:
                await self._keep_raw(record, str(error))
                return
            except Exception as error:  # noqa: BLE001 - one poison stops nobody; its bytes are kept
                log.error("a listener failed on a record", extra={"listener": self._listener.name}, exc_info=error)
                await self._keep_raw(record, f"{type(error).__name__}: {error}")
                return
            else:
                return
