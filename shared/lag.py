"""Lag: how far behind a service's part of the bus is, from its slot to its positions, each with its age."""

import asyncio
from datetime import UTC, datetime

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec
from pydantic import BaseModel, Field

from shared.kafka import administrator
from shared.settings import Settings
from shared.tx import Tx

_TIMEOUT = 10


class SlotLag(BaseModel):
    """The replication slot through which the changes of the service's database leave. One slot serves all services of a database."""

    name: str
    active: bool
    state: str | None = Field(description="As Postgres says it: `reserved`, `extended`, `unreserved`, `lost`")
    behind_bytes: int | None
    age_seconds: float | None = Field(description="How long ago what it has passed on was written; up to 4 s is normal")


class LogLag(BaseModel):
    """The change log."""

    records: int = Field(description="An estimate")
    bytes: int
    reaches_back_seconds: float | None = Field(description="How far back changes can be sent again")
    age_seconds: float | None = Field(description="Since it was last written: at most 3 s in a service that lives")


class TopicLag(BaseModel):
    """A topic of changes, and how far the service has read it. The committed offset is a hint: positions decide."""

    topic: str
    end: int
    committed: int
    behind: int
    age_seconds: float | None = Field(description="Since its newest record")


class SourceLag(BaseModel):
    """How far the service has applied what another one announced."""

    source: str
    streams: int = Field(description="Streams it keeps a position of")
    behind: int = Field(description="Streams whose announced head has not come yet")
    behind_age_seconds: float | None = Field(description="Since when the first of them is behind")
    held: int = Field(description="Changes that came and wait for a missing earlier one")
    asked_again: int = Field(description="Holes that the source was asked to close")
    heads_age_seconds: float | None = Field(description="Since the newest announcement that came was made; up to 4 s is normal")


class Lag(BaseModel):
    """One service's part of the bus."""

    service: str
    epoch: int
    slot: SlotLag | None
    log: LogLag
    topics: list[TopicLag] | None = Field(description="null while Kafka does not answer")
    sources: list[SourceLag]
    to_restate: int = Field(description="Streams that wait to be restated")


_SOURCES = """
SELECT source, coalesce(p.streams, 0) AS streams, coalesce(e.behind, 0) AS behind, extract(epoch FROM clock_timestamp() - e.since) AS behind_age_seconds,
    coalesce(h.held, 0) AS held, coalesce(r.asked, 0) AS asked_again, extract(epoch FROM clock_timestamp() - a.at) AS heads_age_seconds
FROM (SELECT source, count(DISTINCT stream) AS streams FROM positions GROUP BY 1) p
FULL JOIN (SELECT source, count(DISTINCT stream) AS behind, min(since) AS since FROM expected GROUP BY 1) e USING (source)
FULL JOIN (SELECT source, count(*) AS held FROM held GROUP BY 1) h USING (source)
FULL JOIN (SELECT source, count(*) AS asked FROM resend_requests WHERE closed_at IS NULL GROUP BY 1) r USING (source)
FULL JOIN heard a USING (source) ORDER BY 1"""


async def of_database(tx: Tx) -> Lag:
    """All but the topics."""
    return Lag(
        service=tx.service,
        epoch=await tx.value("SELECT epoch FROM incarnation"),
        slot=await tx.maybe(SlotLag, "SELECT * FROM slot_lag()"),
        log=await tx.one(LogLag, "SELECT * FROM log_lag()"),
        topics=None,
        sources=await tx.all(SourceLag, _SOURCES),
        to_restate=await tx.value("SELECT count(*) FROM restatements"),
    )


async def of_topics(settings: Settings, service: str) -> list[TopicLag] | None:
    """The topics that the service reads; None while Kafka does not answer."""
    try:
        return await asyncio.to_thread(_topics, settings, service)
    except (KafkaException, TimeoutError):
        return None


def _topics(settings: Settings, service: str) -> list[TopicLag]:
    admin = administrator(settings, service)
    known = admin.list_topics(timeout=_TIMEOUT).topics
    names = [f"{s}.changes" for s in settings.mesh_services.split(",")]
    partitions = [TopicPartition(name, p) for name in names if name in known for p in known[name].partitions]
    ends = admin.list_offsets({p: OffsetSpec.latest() for p in partitions}, request_timeout=_TIMEOUT)  # type: ignore[no-untyped-call]
    newest = admin.list_offsets({p: OffsetSpec.max_timestamp() for p in partitions}, request_timeout=_TIMEOUT)  # type: ignore[no-untyped-call]
    (group,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(service)], request_timeout=_TIMEOUT).values()
    committed = {(p.topic, p.partition): max(0, p.offset) for p in group.result().topic_partitions}
    now = datetime.now(UTC).timestamp()
    found = []
    for name in names:
        mine = [p for p in partitions if p.topic == name]
        end, read = sum(ends[p].result().offset for p in mine), sum(committed.get((name, p.partition), 0) for p in mine)
        last = max((newest[p].result().timestamp for p in mine), default=-1)
        found.append(TopicLag(topic=name, end=end, committed=read, behind=max(0, end - read), age_seconds=now - last / 1000 if last >= 0 else None))
    return found
