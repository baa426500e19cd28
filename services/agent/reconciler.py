"""Makes the server match what is desired: each tenant in turn, tenants side by side."""

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Literal
from uuid import UUID

import asyncpg

from schemas.feed import DatabaseResource, Observed
from services.agent import catalog, databases, logins
from services.agent import plan as planned
from services.agent.backoff import Backoff
from services.agent.catalog import Actual
from services.agent.databases import Spares
from services.agent.desired import Held, Tenant
from services.agent.disk import Disk
from services.agent.errors import explain, is_away
from services.agent.plan import Kind, Step, plan
from services.agent.reports import Holding
from services.agent.server import Server
from shared.failpoints import failpoint
from shared.log import log, working_on
from shared.trace import span, trace_id

TROUBLE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
RECHECK_SECONDS = 1.0
SERVER_RETRY_SECONDS = 5.0
"""At most, until a server that was away is looked for again."""

State = Literal["ready", "suspended", "deleted", "gone", "failed"]
Outcome = tuple[str | None, str | None]
"""(error, traceparent) of a resource that was worked on."""


class Reconciler:
    """Owns what is observed. State-based: every run reads the server, so it may be stopped anywhere and run again."""

    def __init__(self, server: Server, spares: Spares, disk: Disk, tenants: dict[UUID, Tenant], parallel: int) -> None:
        self._server = server
        self._spares = spares
        self._disk = disk
        self._tenants = tenants
        self._slots = asyncio.Semaphore(parallel)
        self._observed: dict[UUID, dict[UUID, Observed]] = {}
        self._strays: dict[UUID, dict[UUID, Observed]] = {}
        self._saved: dict[UUID, str] = {}
        self._due: set[UUID] = set()
        self._working: dict[UUID, asyncio.Task[None]] = {}
        self._retries: dict[UUID, asyncio.TimerHandle] = {}
        self._backoffs: dict[UUID, Backoff] = {}
        self._rechecks: set[asyncio.Task[None]] = set()
        self._unreached: set[UUID] = set()
        """Tenants that found the server away."""
        self._away = asyncio.Event()
        self.changed: Callable[[UUID, list[Observed]], None] = lambda _org_id, _observed: None

    # What others ask

    def holding(self, org_id: UUID) -> Holding:
        tenant = self._tenants.get(org_id)
        resources = list((self._strays.get(org_id, {}) | self._observed.get(org_id, {})).values())
        return Holding(tenant.assignment_generation if tenant else 0, resources, sum(one.kind == "database" for one in resources))

    def held(self) -> list[UUID]:
        """Tenants to report wholly: looked at since the start, and assigned here or with something left here."""
        looked_at = {org_id for org_id, observed in self._observed.items() if observed or self._tenants[org_id].assigned}
        return list(looked_at | self._strays.keys())

    def repeat(self, org_id: UUID, resources: Iterable[UUID]) -> None:
        """The control plane said it again: it has not heard of it."""
        observed = self._observed.get(org_id, {})
        if again := [observed[resource] for resource in resources if resource in observed]:
            self.changed(org_id, again)

    # Work

    def touch(self, org_id: UUID) -> None:
        """News: work on the tenant now, whatever it waited for."""
        self._backoffs.pop(org_id, None)
        self._wake(org_id)

    def _wake(self, org_id: UUID) -> None:
        if retry := self._retries.pop(org_id, None):
            retry.cancel()
        self._due.add(org_id)
        if org_id not in self._working:
            self._working[org_id] = asyncio.create_task(self._work(org_id))

    async def _work(self, org_id: UUID) -> None:
        try:
            while org_id in self._due:
                self._due.discard(org_id)
                async with self._slots:
                    well = await self._settle(self._tenants[org_id])
                if well:
                    self._backoffs.pop(org_id, None)
                elif org_id not in self._due:
                    self._retry(org_id)
        except Exception:  # noqa: BLE001 - whatever it is, it is one tenant's
            log.exception("a tenant could not be worked on", extra={"org_id": str(org_id)})
            self._retry(org_id)
        finally:
            del self._working[org_id]

    def _retry(self, org_id: UUID) -> None:
        pause = self._backoffs.setdefault(org_id, Backoff(0.5, 60)).wait()
        self._retries[org_id] = asyncio.get_running_loop().call_later(pause, self._wake, org_id)

    async def _settle(self, tenant: Tenant) -> bool:
        """Bring one tenant to what is desired of it; whether all of it went well, its being remembered included."""
        await self._save(tenant)
        wanted = tenant.snapshot()
        outcomes: dict[UUID, Outcome] = {}
        try:
            steps = plan(wanted, await catalog.read(self._server, wanted.org_id, planned.names(wanted)))
        except TROUBLE as error:
            log.warning("the server cannot be read: %s", explain(error), extra={"org_id": str(wanted.org_id), "error": type(error).__name__})
            unsettled = [resource for resource, held in wanted.resources.items() if not self._is_settled(wanted, held)]
            self._conclude(tenant, wanted, [], {resource: (explain(error), None) for resource in unsettled})
            if is_away(error):
                self._unreached.add(wanted.org_id)
                self._away.set()
            return False
        for step in steps:
            outcomes[step.resource] = await self._apply(wanted, step, outcomes)
            failpoint("step")
        self._conclude(tenant, wanted, steps, outcomes)
        remembered = await self._save(tenant)
        return remembered and not any(error for error, _ in outcomes.values())

    def _is_settled(self, wanted: Tenant, held: Held) -> bool:
        """Whether it was seen to be as it is wanted now: a server that is away for a moment says nothing against it."""
        seen = self._observed.get(wanted.org_id, {}).get(held.resource.resource)
        return seen is not None and (seen.generation, seen.state) == (held.resource.generation, _state(wanted, held))

    async def _save(self, tenant: Tenant) -> bool:
        """Whether the disk holds it."""
        content = tenant.model_dump_json()
        if self._saved.get(tenant.org_id) == content:
            return True
        try:
            await asyncio.to_thread(self._disk.save, tenant.org_id, content.encode())
            self._saved[tenant.org_id] = content
        except OSError as error:
            log.error("the desired state cannot be written, it is tried again; a start without the control plane would miss it: %s", error)
            return False
        return True

    async def _apply(self, wanted: Tenant, step: Step, outcomes: dict[UUID, Outcome]) -> Outcome:
        """One step, in a span of its own below what asked for it; none where an earlier step failed that it stands on."""
        so_far = outcomes.get(step.resource, (None, None))
        if so_far[0] or isinstance(step, planned.Waits):
            return so_far
        if error := _cannot(step, outcomes):
            return error, None
        held = wanted.resources.get(step.resource)
        flow = str(held.resource.flow_id) if held and held.resource.flow_id else None
        parent = held.resource.traceparent if held else None
        doing = type(step).__name__
        with span(f"agent {doing}", parent) as traceparent, working_on(org_id=wanted.org_id, flow_id=flow, trace_id=trace_id(traceparent)):
            error = None
            try:
                await self._perform(wanted.org_id, step)
            except TROUBLE as trouble:
                error = explain(trouble)
                log.warning("%s failed: %s", doing, error, extra={"resource": str(step.resource)})
            else:
                log.info("%s", doing, extra={"resource": str(step.resource)})
            return error, traceparent

    async def _perform(self, org_id: UUID, step: Step) -> None:  # noqa: C901 - one case a kind of step
        server = self._server
        match step:
            case planned.ShutLogins():
                self._recheck(step.usernames, await logins.shut(server, step.usernames))
            case planned.DropLogin():
                await logins.drop(server, step.username)
            case planned.DropDatabase():
                await databases.drop(server, step.names, step.roles)
            case planned.CreateDatabase():
                await databases.create(server, self._spares, org_id, step.resource, step.name, step.connection_limit)
            case planned.AllowDatabase():
                await databases.allow(server, step.name, step.connection_limit)
            case planned.RepairDatabase():
                await databases.repair(server, org_id, step.resource, step.name)
            case planned.RefuseDatabase():
                await databases.refuse(server, step.name)
            case planned.CreateLogin():
                await logins.create(server, step.login, step.database)
            case planned.ChangeLogin():
                self._recheck((step.actual.name,), await logins.change(server, step.actual, step.login, step.database))

    def _recheck(self, usernames: tuple[str, ...], shut_at: datetime) -> None:
        async def again() -> None:
            await asyncio.sleep(RECHECK_SECONDS)
            with suppress(*TROUBLE):
                await logins.end_older(self._server, usernames, shut_at)

        task = asyncio.create_task(again())
        self._rechecks.add(task)
        task.add_done_callback(self._rechecks.discard)

    # What was seen

    def _conclude(self, tenant: Tenant, wanted: Tenant, steps: list[Step], outcomes: dict[UUID, Outcome]) -> None:
        """Observe every resource after a run; tell what is different from the last time."""
        waiting = {step.resource for step in steps if isinstance(step, planned.Waits)}
        before = self._observed.setdefault(wanted.org_id, {})
        now: dict[UUID, Observed] = {}
        for resource, held in wanted.resources.items():
            if resource in waiting:
                continue
            error, traceparent = outcomes.get(resource, (None, None))
            if held.resource.kind == "login" and not wanted.open and not self._is_settled(wanted, held):
                error = error or outcomes.get(wanted.org_id, (None, None))[0]
            last = before.get(resource)
            state: State = "failed" if error else _state(wanted, held)
            known = last if last and last.generation == held.resource.generation and last.state == state else None
            now[resource] = Observed(
                resource=resource,
                kind=held.resource.kind,
                generation=held.resource.generation,
                state=state,
                error=error,
                flow_id=held.resource.flow_id,
                traceparent=traceparent or (known.traceparent if known else _passed_on(held)),
            )
            if not error:
                self._note(tenant, held)
        gone = [one for one in now.values() if one.state == "gone" and one.resource != wanted.org_id]
        gone += [_unasked(step.resource, kind, "gone") for step in steps if (kind := _dropped_unasked(step, wanted)) and not outcomes[step.resource][0]]
        differs = [one for one in now.values() if one != before.get(one.resource)]
        self._observed[wanted.org_id] = {resource: one for resource, one in now.items() if one not in gone}
        if told := list({one.resource: one for one in (*differs, *gone)}.values()):
            self.changed(wanted.org_id, told)

    def _note(self, tenant: Tenant, held: Held) -> None:
        if held.removed:
            tenant.bury(held)
        elif isinstance(held.resource, DatabaseResource) and held.resource.desired.state == "present" and tenant.assigned and not held.made:
            tenant.put(held, held.model_copy(update={"made": True}))

    # Drift

    async def watch(self, every: float, swept: asyncio.Event) -> None:
        """Compare everything with the server at start and then periodically, until cancelled; sets ``swept`` after the first.

        A server that was found to be away is looked for more often: when it is back, whoever waited for it goes on.
        """
        backoff = Backoff(0.5, min(every, SERVER_RETRY_SECONDS))
        while True:
            self._away.clear()
            if await self._compared():
                swept.set()
                if await self._is_quiet(every * random.uniform(0.8, 1.2)):  # noqa: S311 - jitter
                    backoff.reset()
                    continue
            await asyncio.sleep(backoff.wait())

    async def _compared(self) -> bool:
        """Whether the server was there; then whoever found it away goes on."""
        try:
            await databases.seal(self._server)
            self._sweep(await catalog.read(self._server))
        except TROUBLE as error:
            log.warning("the server cannot be compared: %s", explain(error))
            return False
        waited, self._unreached = self._unreached, set()
        for org_id in waited:
            self.touch(org_id)
        return True

    async def _is_quiet(self, seconds: float) -> bool:
        """Whether nobody finds the server away for so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._away.wait()
        except TimeoutError:
            return True
        return False

    def _sweep(self, actual: Actual) -> None:
        for org_id, tenant in self._tenants.items():
            if org_id in self._working or org_id in self._retries:
                continue
            steps = plan(tenant, actual)
            if tenant.removing or any(not isinstance(step, planned.Waits) for step in steps):
                self.touch(org_id)
            else:
                self._conclude(tenant, tenant.snapshot(), steps, {})
        self._strays = {}
        for owner in actual.owners:
            known = self._tenants.get(owner.org_id)
            if known is None or owner.resource not in known.resources:
                kind: Kind = "database" if owner.group or actual.databases_of(owner.org_id, owner.resource) else "login"
                self._strays.setdefault(owner.org_id, {})[owner.resource] = _unasked(owner.resource, kind, "ready")

    async def close(self) -> None:
        tasks = [*self._working.values(), *self._rechecks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _cannot(step: Step, outcomes: dict[UUID, Outcome]) -> str | None:
    if isinstance(step, planned.Blocked):
        return step.error
    if isinstance(step, planned.CreateLogin | planned.ChangeLogin):
        error = outcomes.get(step.login.desired.database, (None, None))[0]
        return f"its database is not well: {error}" if error else None
    return None


def _state(tenant: Tenant, held: Held) -> State:
    if held.removed:
        return "gone"
    if isinstance(held.resource, DatabaseResource) and held.resource.desired.state == "deleted":
        return "deleted"
    return "ready" if tenant.open else "suspended"


def _unasked(resource: UUID, kind: Kind, state: State) -> Observed:
    """Something marked as ours of which no desired state is known: generation 0, so that the control plane decides."""
    return Observed(resource=resource, kind=kind, generation=0, state=state)


def _dropped_unasked(step: Step, wanted: Tenant) -> Kind | None:
    if step.resource in wanted.resources:
        return None
    return "database" if isinstance(step, planned.DropDatabase) else "login" if isinstance(step, planned.DropLogin) else None


def _passed_on(held: Held) -> str | None:
    """Nothing had to be done for it, which its trace shows as well."""
    with span("agent in place", held.resource.traceparent) as traceparent:
        return traceparent
