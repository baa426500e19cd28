"""Reports out: what the agent sees, on change and wholly from time to time."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.feed import Hello, Observed, Report
from services.agent import kafka
from services.agent.backoff import Backoff
from services.agent.settings import Settings
from shared.log import log


class Holding(NamedTuple):
    """What is held of one tenant."""

    assignment_generation: int
    resources: list[Observed]
    databases: int


class Reports:
    """What has not been sent is kept as state, not as messages: it is bounded by what the agent holds, however long Kafka is away."""

    def __init__(self, settings: Settings, epoch: int, holding: Callable[[UUID], Holding], tenants: Callable[[], Iterable[UUID]]) -> None:
        self._settings = settings
        self._epoch = epoch
        self._holding = holding
        self._tenants = tenants
        self._counter = 0
        self._changes: dict[UUID, dict[UUID, Observed]] = {}
        self._complete: set[UUID] = set()
        self._hello = False
        self._news = asyncio.Event()

    def changed(self, org_id: UUID, observed: Iterable[Observed]) -> None:
        """Tell it as soon as possible."""
        self._changes.setdefault(org_id, {}).update({one.resource: one for one in observed})
        self._news.set()

    async def run(self) -> None:
        """Send until cancelled."""
        backoff = Backoff(0.2, 2)
        while True:
            producer = AIOKafkaProducer(**kafka.access(self._settings), acks="all")
            try:
                await producer.start()
                await self._send_all(producer, backoff)
            except (KafkaError, OSError) as error:
                pause = backoff.wait()
                log.warning("reports cannot be sent, again in %.1f s: %s", pause, type(error).__name__)
                await asyncio.sleep(pause)
            finally:
                with contextlib.suppress(KafkaError, OSError, TimeoutError):
                    await asyncio.wait_for(producer.stop(), 1)

    async def tell_all(self) -> None:
        """Say hello and everything at start, a little scattered, and then once a period."""
        await asyncio.sleep(random.uniform(0, self._settings.agent_start_jitter))  # noqa: S311 - jitter
        while True:
            self._hello = True
            self._complete |= set(self._tenants())
            self._news.set()
            await asyncio.sleep(self._settings.agent_report_every * random.uniform(0.9, 1))  # noqa: S311 - jitter

    async def _send_all(self, producer: AIOKafkaProducer, backoff: Backoff) -> None:
        await producer.partitions_for(self._settings.reports_topic)
        while True:
            await self._news.wait()
            self._news.clear()
            changes, complete, hello = self._changes, self._complete, self._hello
            self._changes, self._complete, self._hello = {}, set(), False
            messages = [self._hello_now()] if hello else []
            messages += [self._report(org_id, list(one.values()), complete=False) for org_id, one in changes.items()]
            messages += [self._report(org_id, self._holding(org_id).resources, complete=True) for org_id in complete]
            try:
                async with asyncio.timeout(10):
                    topic = self._settings.reports_topic
                    sent = [await producer.send(topic, value, key=key) for key, value in messages]
                    await asyncio.gather(*sent)
            except (KafkaError, TimeoutError):
                self._keep(changes, complete, hello=hello)
                raise
            backoff.reset()

    def _keep(self, changes: dict[UUID, dict[UUID, Observed]], complete: set[UUID], *, hello: bool) -> None:
        for org_id, one in changes.items():
            self._changes[org_id] = one | self._changes.get(org_id, {})
        self._complete |= complete
        self._hello |= hello
        self._news.set()

    def _report(self, org_id: UUID, resources: list[Observed], *, complete: bool) -> tuple[bytes, bytes]:
        self._counter += 1
        report = Report(
            data_plane=self._settings.data_plane_id,
            agent_epoch=self._epoch,
            counter=self._counter,
            at=_now(),
            org_id=org_id,
            assignment_generation=self._holding(org_id).assignment_generation,
            complete=complete,
            resources=resources,
        )
        return str(org_id).encode(), report.model_dump_json().encode()

    def _hello_now(self) -> tuple[bytes, bytes]:
        self._counter += 1
        hello = Hello(
            data_plane=self._settings.data_plane_id,
            agent_epoch=self._epoch,
            counter=self._counter,
            at=_now(),
            host=self._settings.data_plane_host,
            port=self._settings.data_plane_port,
            databases=sum(self._holding(org_id).databases for org_id in self._tenants()),
        )
        return b"hello", hello.model_dump_json().encode()


def _now() -> datetime:
    """For people who read reports; their order is (epoch, counter). The agent may have no database to ask just then."""
    return datetime.fromtimestamp(time.time(), UTC)
