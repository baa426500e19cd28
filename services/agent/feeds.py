"""Which topics are read: found quickly when they are new, cheaply read when they are settled."""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code

from services.agent import kafka
from services.agent.backoff import Backoff
from services.agent.inbox import Listener, Record
from services.agent.reader import Reader
from services.agent.settings import Settings
from shared.log import log

ARRIVAL_SECONDS = 5.0
MOST_ARRIVALS = 32
WORTH_A_LOG = 5.0
"""Seconds in vain; a topic that is just being made, or granted, needs some."""


@dataclass
class _Search:
    """A topic that is wanted and not read yet: it may not exist so far, or not be granted."""

    at: float = 0
    since: float = field(default_factory=time.monotonic)
    backoff: Backoff = field(default_factory=lambda: Backoff(0.01, 2))
    warned: bool = False


class Feeds:
    """Two readers. New topics start in one with a short fetch, where a joining topic waits 20 ms at most; after some seconds
    they move to the one with a long fetch, which costs next to nothing. Before either, a client of its own asks whether the topic
    can be read, with back-off for each topic, so that one that is missing or forbidden disturbs nobody.
    """

    def __init__(self, settings: Settings, listener: Listener) -> None:
        self._access = kafka.access(settings)
        self._always = {settings.assignments_topic: frozenset[UUID]()}
        self._listener = listener
        self._arrivals = Reader(self._access, 20, self._hear, self._lost)
        self._settled = Reader(self._access, 500, self._hear, self._lost)
        self._read: dict[str, int] = {}
        """How far a topic was read before it was begun again."""
        self._arrived: dict[str, float] = {}
        self._searches: dict[str, _Search] = {}
        self._wanted: dict[str, frozenset[UUID]] = {}
        self._news = asyncio.Event()
        self._quick: set[str] = set()
        self.follow({}, quickly=False)

    @property
    def reading(self) -> set[str]:
        return self._arrivals.topics | self._settled.topics

    def follow(self, topics: Mapping[str, frozenset[UUID]], *, quickly: bool = True) -> None:
        """Read exactly these. A topic that now speaks of one more tenant is read again from its beginning."""
        wanted = {**self._always, **topics}
        for topic in self._wanted.keys() - wanted.keys():
            self._stop(topic)
            self._read.pop(topic, None)
        for topic, orgs in wanted.items():
            if topic not in self._wanted or orgs - self._wanted[topic]:
                self._stop(topic)
                self._searches[topic] = _Search()
                if quickly:
                    self._quick.add(topic)
        self._wanted = wanted
        self._news.set()

    def _stop(self, topic: str) -> None:
        self._searches.pop(topic, None)
        self._arrived.pop(topic, None)
        self._quick.discard(topic)
        left = self._arrivals.leave({topic}) | self._settled.leave({topic})
        self._read[topic] = max(self._read.get(topic, 0), *left.values(), 0)

    def _hear(self, records: list[Record]) -> None:
        self._listener([record._replace(again=record.offset < self._read.get(record.topic, 0)) for record in records])

    def _lost(self, topic: str) -> None:
        """A reader had to give it up: the search begins again."""
        self._arrived.pop(topic, None)
        self._read.pop(topic, None)
        if topic in self._wanted:
            search = self._searches[topic] = _Search()
            search.at = time.monotonic() + search.backoff.wait()
            self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._arrivals.run())
            tasks.create_task(self._settled.run())
            tasks.create_task(self._search_all())

    async def _search_all(self) -> None:
        backoff = Backoff(0.2, 2)
        while True:
            admin = AIOKafkaAdminClient(**self._access)
            try:
                await admin.start()
                backoff.reset()
                await self._search(admin)
            except (KafkaError, OSError) as error:
                pause = backoff.wait()
                log.warning("Kafka cannot be reached, again in %.1f s: %s", pause, type(error).__name__)
                await asyncio.sleep(pause)
            finally:
                with contextlib.suppress(KafkaError, OSError, TimeoutError):
                    await asyncio.wait_for(admin.close(), 1)

    async def _search(self, admin: AIOKafkaAdminClient) -> None:
        while True:
            self._news.clear()
            self._settle()
            now = time.monotonic()
            if due := [topic for topic, search in self._searches.items() if search.at <= now]:
                for answer in await admin.describe_topics(due):
                    self._found(answer)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), self._pause())

    def _pause(self) -> float | None:
        """Until the next search is due, or the next arrival is to settle."""
        times = [search.at for search in self._searches.values()]
        times += [at + ARRIVAL_SECONDS for at in self._arrived.values()]
        return max(min(times) - time.monotonic(), 0.001) if times else None

    def _found(self, answer: dict[str, Any]) -> None:
        topic = answer["topic"]
        search = self._searches.get(topic)
        if search is None:
            return
        partitions = [one["partition"] for one in answer["partitions"] if one["leader"] >= 0]
        if answer["error_code"] or not partitions or len(partitions) < len(answer["partitions"]):
            self._not_yet(topic, search, answer["error_code"])
            return
        del self._searches[topic]
        positions = {TopicPartition(topic, partition): 0 for partition in partitions}
        if topic in self._quick and len(self._arrived) < MOST_ARRIVALS:
            self._arrived[topic] = time.monotonic()
            self._arrivals.join(positions)
        else:
            self._settled.join(positions)
        self._quick.discard(topic)
        log.info("a topic is read", extra={"topic": topic, "found_after_ms": round(1000 * (time.monotonic() - search.since))})

    def _not_yet(self, topic: str, search: _Search, code: int) -> None:
        now = time.monotonic()
        search.at = now + search.backoff.wait()
        if not search.warned and now - search.since > WORTH_A_LOG:
            search.warned = True
            log.warning("a topic cannot be read yet, still trying: %s", for_code(code).__name__, extra={"topic": topic})

    def _settle(self) -> None:
        before = time.monotonic() - ARRIVAL_SECONDS
        if settled := {topic for topic, at in self._arrived.items() if at <= before}:
            for topic in settled:
                del self._arrived[topic]
            self._settled.join(self._arrivals.leave(settled))
