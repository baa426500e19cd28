"""Reads the change topics: FastStream hands over raw batches, the applier commits their effects, Kafka offsets follow lazily.

The offset committed to Kafka is a hint that saves re-reading; what was applied is known by the positions alone.
"""

import asyncio
import re
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.helpers import create_ssl_context
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage
from faststream.security import SASLScram256

from shared.bus import Applier
from shared.changes import Change, Undecodable, decode
from shared.log import log
from shared.metrics import metrics
from shared.settings import Settings

MAX_RECORDS = 2000
_TOPIC = re.compile(r"^([a-z_]+)\.changes$")


def kafka_broker(settings: Settings, service: str) -> KafkaBroker:
    """A FastStream broker as this service's own SCRAM user."""
    ssl = create_ssl_context() if settings.kafka_security_protocol == "SASL_SSL" else None
    security = SASLScram256(settings.kafka_username, settings.kafka_password.get_secret_value(), ssl_context=ssl, use_ssl=bool(ssl))
    return KafkaBroker(settings.kafka_bootstrap, security=security, client_id=f"mesh-{service}", apply_types=False, logger=None)


class _Joined(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Whether this replica belongs to its group. One without partitions is a working spare."""

    def __init__(self) -> None:
        self.yes = False

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Nothing to hand over: positions are in the database."""

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:  # noqa: ARG002 - aiokafka's signature
        self.yes = True


class ChangeConsumer:
    """One consumer group a service over the change topics of all services."""

    def __init__(self, broker: KafkaBroker, applier: Applier, topics: Iterable[str]) -> None:
        self.applier = applier
        self._committed_at = 0.0
        self.joined = _Joined()
        self._subscriber = broker.subscriber(
            *topics,
            group_id=applier.service,
            batch=True,
            max_records=MAX_RECORDS,
            batch_timeout_ms=500,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.MANUAL,
            session_timeout_ms=3000,
            heartbeat_interval_ms=1000,
            max_poll_interval_ms=3_600_000,
            fetch_max_wait_ms=500,
            fetch_max_bytes=16 * 1024 * 1024,
            max_partition_fetch_bytes=8 * 1024 * 1024,
            listener=self.joined,
            parser=self._parse,
            decoder=self._decode,
        )
        self._subscriber(self.handle)

    async def _parse(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> KafkaAckableMessage:
        return KafkaAckableMessage(raw_message=tuple(records), body=tuple(records), consumer=self._subscriber.consumer)

    @staticmethod
    async def _decode(message: KafkaAckableMessage) -> Any:
        return message.body

    async def handle(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> None:
        """Applies one batch; returns only when nothing of it can be lost."""
        if not records:
            return
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
        await self._commit_lazily()

    async def _read(self, record: ConsumerRecord[bytes, bytes]) -> Change | None:
        match = _TOPIC.match(record.topic)
        source = match.group(1) if match else record.topic
        stream = (record.key or b"").decode(errors="replace")
        if stream and not any(self.applier.follows(reader, source, stream) for reader in ("replicas", "reactions")):
            return None
        try:
            change = decode(source, record.value)
            if stream and stream != change.stream:
                raise Undecodable(f"the key says {stream!r}, the record {change.stream!r}")
        except Undecodable as error:
            await self._keep_raw(record, str(error))
            return None
        return change

    async def _keep_raw(self, record: ConsumerRecord[bytes, bytes], reason: str) -> None:
        log.error("a record is no change record and is kept raw", extra={"topic": record.topic, "offset": record.offset, "reason": reason})
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
