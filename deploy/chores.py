"""What has to be true in Kafka, Postgres and Connect for the mesh to run: made where it is missing, repaired where it was lost."""

import asyncio
from dataclasses import dataclass
from functools import cached_property

from confluent_kafka.admin import AdminClient

from deploy import connectors, kafka, topics
from deploy.connect import Worker
from deploy.databases import Databases, renew_lost_slot
from deploy.plan import Plan
from deploy.postgres import control_plane
from deploy.state import State

CONNECTORS_EVERY = 2.0  # seconds between looks for a failed connector task
KAFKA_EVERY = 10.0  # seconds between looks for missing topics, users and rights
SLOTS_EVERY = 5.0  # seconds between looks for a slot that Postgres has given up


@dataclass(frozen=True)
class Chores:
    """Each may be done any number of times, and answers in words what had to be done."""

    state: State
    plan: Plan

    @cached_property
    def _admin(self) -> AdminClient:
        return kafka.Broker.of(self.state, self.plan).admin()

    def users(self) -> str:
        return topics.ensure_users(self._admin, kafka.Broker.of(self.state, self.plan), self.plan)

    def topics(self) -> str:
        return topics.ensure_topics(self._admin, self.plan)

    async def databases(self) -> str:
        await Databases(self.state, self.plan).prepare()
        return ""

    def connectors(self) -> str:
        """Every database has its connector, and every task of it runs."""
        worker = Worker.of(self.state, self.plan)
        done = []
        for database in self.plan.placement:
            password = worker.secret_reference("mesh_cdc")
            config = connectors.changes_connector(database, self.plan.host("postgres"), self.plan.ports["postgres"], password)
            if worker.registry.ensure(f"{database}-changes", config):
                worker.registry.await_running(f"{database}-changes")
                done.append(f"{database}-changes")
            elif worker.registry.state(f"{database}-changes") == "FAILED":
                worker.registry.restart(f"{database}-changes", only_failed=True)
                done.append(f"{database}-changes restarted")
        return ", ".join(done)

    async def slots(self) -> str:
        """No connector stands before a slot that Postgres has given up: its task tries for minutes before it fails, and for as long before it looks anew."""
        worker = Worker.of(self.state, self.plan)
        done = []
        for database in self.plan.placement:
            if await renew_lost_slot(control_plane(self.state, self.plan).url(database), database):
                await asyncio.to_thread(worker.registry.restart, f"{database}-changes")
                done.append(f"{database}-changes has a new slot: Postgres gave up the old one")
        return ", ".join(done)
