"""Reports: what an agent saw of a tenant, taken in once, in order, and from the data plane that holds it only."""

from dataclasses import replace
from uuid import UUID

from schemas.feed import Observed, Report
from services.provisioning import databases, grants, logins, observations, tenants
from services.provisioning.feed import HeldTenant
from shared.changes import Context, Undecodable
from shared.log import log
from shared.trace import span
from shared.tx import Tx


class WrongDataPlane(Undecodable):
    """A report from a data plane that does not hold the tenant: it is kept raw and changes nothing."""


async def check(tx: Tx, report: Report) -> None:
    """Raises :class:`WrongDataPlane`. Locks nothing, so that a tenant nobody knows leaves no trace."""
    holder = await tx.value("SELECT data_plane FROM tenants")
    if holder != report.data_plane:
        raise WrongDataPlane(f"the data plane {report.data_plane} does not hold the organization {report.org_id}")


async def take(tx: Tx, report: Report) -> None:
    """Takes a report in, unless a later one was. The tenant's stream is locked."""
    await check(tx, report)
    if not await _is_news(tx, report):
        return
    tenant = await tx.one(HeldTenant, "SELECT * FROM tenants")
    if report.assignment_generation != tenant.assignment_generation:
        if report.complete:
            await tenants.assign_again(tx, report.assignment_generation)
        return
    for seen in report.resources:
        await _in_its_flow(tx, seen)
    if report.complete:
        await _take_complete(tx, report)


async def _is_news(tx: Tx, report: Report) -> bool:
    return bool(
        await tx.run(
            "INSERT INTO reports (data_plane, agent_epoch, counter) VALUES ($1, $2, $3) ON CONFLICT (org_id, data_plane) "
            "DO UPDATE SET agent_epoch = excluded.agent_epoch, counter = excluded.counter "
            "WHERE (excluded.agent_epoch, excluded.counter) > (reports.agent_epoch, reports.counter)",
            report.data_plane, report.agent_epoch, report.counter,
        )
    )  # fmt: skip


async def _in_its_flow(tx: Tx, seen: Observed) -> None:
    """One resource, in the flow and trace of what the agent was told."""
    asked = tx.context
    with span(f"provisioning.observe {seen.kind}", seen.traceparent) as traceparent:
        tx.act_as(tx.org_id, None, replace(asked, flow_id=seen.flow_id, traceparent=traceparent), None)
        await _observe(tx, seen)
    tx.act_as(tx.org_id, None, asked, None)


async def _observe(tx: Tx, seen: Observed) -> None:
    if seen.kind == "organization":
        await tenants.observe(tx, seen)
    elif seen.kind == "login":
        member = await logins.observe(tx, seen)
        if member:
            await grants.settle(tx, member)
    elif not await databases.observe(tx, seen):
        log.error("a data plane holds a database that is not known here: it is left alone", extra={"org_id": str(tx.org_id), "database": str(seen.resource)})


async def _take_complete(tx: Tx, report: Report) -> None:
    """What the data plane holds is all there is: answers what is lacking."""
    present: list[UUID] = [seen.resource for seen in report.resources]
    await observations.observe_all(tx, tenants.KIND, present)
    await observations.observe_all(tx, databases.KIND, present)
    for gone in await observations.observe_all(tx, logins.KIND, present):
        await grants.settle(tx, gone.user_id)


def context_of(report: Report) -> Context:
    return Context(by=f"agent:{report.data_plane}")
