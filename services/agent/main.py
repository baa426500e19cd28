"""The agent from its parts: ``python -m services.agent.main``."""

import asyncio
import contextlib
import logging
import os
import signal
import threading
from uuid import UUID

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from services.agent.databases import Spares
from services.agent.desired import Tenant
from services.agent.disk import Disk
from services.agent.feeds import Feeds
from services.agent.inbox import Inbox, Record
from services.agent.reconciler import Reconciler
from services.agent.reports import Reports
from services.agent.server import Server
from services.agent.settings import Settings
from shared.log import log, set_up_logs
from shared.trace import set_up_traces


class Agent:
    """All parts of one data plane's agent."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        disk = Disk(settings.agent_state_dir)
        epoch = disk.next_epoch()
        tenants: dict[UUID, Tenant] = {tenant.org_id: tenant for tenant in disk.load()}
        self._server = Server(settings.data_plane_url.get_secret_value(), settings.agent_parallel + 2)
        self._spares = Spares(self._server, settings.agent_spare_databases)
        self._inbox = Inbox(settings.assignments_topic, tenants)
        self.reconciler = Reconciler(self._server, self._spares, disk, tenants, settings.agent_parallel)
        self._reports = Reports(settings, epoch, self.reconciler.holding, self.reconciler.held)
        self.reconciler.changed = self._reports.changed
        self.feeds = Feeds(settings, self._heard)
        self.feeds.follow(self._inbox.topics(), quickly=False)
        log.info("the agent starts", extra={"data_plane": settings.data_plane_id, "epoch": epoch, "tenants": len(tenants)})

    def _heard(self, records: list[Record]) -> None:
        heard = self._inbox.take(records)
        if heard.assignments_changed:
            self.feeds.follow(self._inbox.topics())
        for org_id in heard.changed:
            self.reconciler.touch(org_id)
        for org_id, resources in heard.repeated.items():
            self.reconciler.repeat(org_id, resources)

    async def run(self) -> None:
        """Until cancelled. Neither Kafka nor the server needs to be there; anything else that fails ends it, to be started anew."""
        swept = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._spares.keep_filled())
                tasks.create_task(self.reconciler.watch(self._settings.agent_reconcile_every, swept))
                tasks.create_task(self.feeds.run())
                tasks.create_task(self._reports.run())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(swept.wait(), 5)
                tasks.create_task(self._reports.tell_all())
        finally:
            await self.reconciler.close()
            await self._server.close()


async def _until_told() -> None:
    agent = asyncio.create_task(Agent(Settings()).run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await agent
    log.info("the agent has stopped")


def main() -> None:
    set_up_logs("agent", "INFO")
    set_up_traces("agent")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    asyncio.run(_until_told())
    _leave()


def _leave() -> None:
    """Exit within the time a supervisor gives, also while a trace collector that is away keeps the exporter trying."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        flushing = threading.Thread(target=provider.force_flush, daemon=True)
        flushing.start()
        flushing.join(1)
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
