"""A service from its parts: its REST API, its reactions, its timers and workers, around one database."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from types import ModuleType

import uvicorn
from fastapi import APIRouter, FastAPI
from faststream.kafka import KafkaBroker
from tenacity import before_sleep_log, retry, retry_if_exception_type, wait_exponential

from shared import healing, leases, watching
from shared.bus import Applier
from shared.consumer import ChangeConsumer, Consumer, ListeningConsumer, kafka_broker
from shared.healing import SELDOM, Retrier, every
from shared.http.app import create_app
from shared.listening import listeners_of
from shared.log import log, set_up_logs
from shared.operating import Operating
from shared.orders import ORDERED
from shared.parking import PARKED
from shared.reactions import activate, followers_of, reactions_of
from shared.replicas import replicas_of
from shared.settings import settings
from shared.trace import set_up_traces
from shared.tx import Database, DatabaseAway, Restored
from shared.watching import Watch
from shared.workers import JobRunner, chores_of, jobs_of

KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than clients and balancers keep one, or they send requests into one that is just being closed."""


class Service:
    """One of the mesh's services. Its ``parts`` are the modules that register what it reacts to and works on."""

    def __init__(self, name: str, router: APIRouter, *parts: ModuleType) -> None:
        self.name = name
        self.parts = parts
        self.app = create_app(name, router, self._lifespan)
        self.consumers: list[Consumer] = []

    def run(self) -> None:
        """Serves until it is told to stop. Every replica of a service is one such process."""
        s = settings()
        set_up_logs(self.name, s.log_level)
        set_up_traces(self.name)
        uvicorn.run(
            self.app, host=s.http_host, port=s.http_port, loop="asyncio", log_config=None, access_log=False,
            timeout_graceful_shutdown=3, timeout_keep_alive=KEEP_ALIVE,
        )  # fmt: skip

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        database = await _connect(self.name)
        reactions, replicas = reactions_of(self.name), await replicas_of(database.pool, self.name)
        applier = Applier(database, reactions, replicas, followers_of(self.name), await activate(database, reactions))
        app.state.database, app.state.applier, app.state.ready = database, applier, self._not_ready
        broker = kafka_broker(settings(), self.name)
        self.consumers = [
            ChangeConsumer(broker, applier, [f"{s}.changes" for s in settings().mesh_services.split(",")]),
            *(ListeningConsumer(broker, applier, one, one.topics(settings())) for one in listeners_of(self.name)),
        ]
        self.database = database
        tasks = [asyncio.create_task(t) for t in self._background(applier)]
        starting = asyncio.create_task(self._start_broker(broker))
        try:
            yield
        finally:
            for task in [*tasks, starting]:
                task.cancel()
            await asyncio.gather(*tasks, starting, return_exceptions=True)
            with contextlib.suppress(Exception):
                await asyncio.wait_for(broker.stop(), timeout=3)
            with contextlib.suppress(Exception):
                await asyncio.wait_for(database.close(), timeout=2)

    def _background(self, applier: Applier) -> list[Coroutine[None, None, None]]:
        database, retrier = applier.database, Retrier(applier)
        return [
            every(healing.HEADS_EVERY, lambda: healing.announce_heads(database), "announce heads"),
            every(watching.EVERY, Watch(database).look, "watch"),
            every(SELDOM, lambda: healing.check_expected(database), "check heads", database.waker(healing.MISSING)),
            every(SELDOM, retrier.retry_due, "retry parked", database.waker(PARKED)),
            every(SELDOM, Operating(retrier).carry_out, "carry out orders", database.waker(ORDERED)),
            every(SELDOM, lambda: healing.restate_wanted(database), "restate", database.waker(healing.TO_RESTATE)),
            leases.keep(database),
            *(consumer.keep_reading() for consumer in self.consumers),
            every(3600, lambda: healing.tidy(database), "tidy"),
            *(JobRunner(database, job).run() for job in jobs_of(self.name)),
            *(every(c.every_seconds, partial(c.function, database), c.name) for c in chores_of(self.name)),
        ]

    @staticmethod
    async def _start_broker(broker: KafkaBroker) -> None:
        """Starts consuming as soon as Kafka is there; the REST API serves meanwhile."""
        while True:
            try:
                await broker.start()
            except Exception as error:  # noqa: BLE001 - Kafka may be away for any reason; changes wait
                log.warning("waiting for Kafka", extra={"error": repr(error)})
                with contextlib.suppress(Exception):
                    await broker.stop()
                await asyncio.sleep(1)
            else:
                return

    async def _not_ready(self) -> str | None:
        try:
            keys = await asyncio.wait_for(self.database.pool.fetchval("SELECT count(*) FROM signing_keys"), timeout=2)
        except Exception as error:  # noqa: BLE001 - whatever keeps the database away, we are not ready
            return str(error) if isinstance(error, Restored) else f"the database does not answer: {type(error).__name__}"
        if not self.consumers or not all(one.joined.yes for one in self.consumers):
            return "changes are not being read yet: waiting for Kafka"
        return None if keys else "no access token can be checked yet: waiting for the first signing key of the user service"


@retry(retry=retry_if_exception_type(DatabaseAway), wait=wait_exponential(multiplier=0.1, max=2), before_sleep=before_sleep_log(log, logging.WARNING))
async def _connect(name: str) -> Database:
    return await Database.connect(settings().database_url.get_secret_value(), name, settings().database_pool)
