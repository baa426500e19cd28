"""What comes in from the bus: changes of other services, reports of the agents."""

from pydantic import ValidationError

from schemas.billing import Subscription
from schemas.feed import Hello, Report, from_agent_json
from schemas.org import Membership, Organization
from services.provisioning import data_planes, databases, grants, reports, tenants
from shared.changes import Undecodable
from shared.listening import Record, listen
from shared.reactions import on
from shared.rows import present
from shared.settings import Settings
from shared.tx import Database, Tx


@on(Organization.inserted)
async def place_the_tenant(tx: Tx, organization: Organization) -> None:
    await tenants.place(tx, organization.org_id)


@on(Organization.became(state=("active", "suspended"), suspended_by=(None, present)))
async def suspend_or_resume(tx: Tx, organization: Organization) -> None:
    """One reaction for both, so that they stay in order whatever becomes of one of them. A suspension that a higher level takes over is wanted anew."""
    await tenants.want(tx, "suspended" if organization.state == "suspended" else "active")


@on(Subscription.inserted)
async def make_the_first_database(tx: Tx, _: Subscription) -> None:
    await databases.create_first(tx)


@on(Subscription.updated)
async def keep_to_the_plan(tx: Tx, subscription: Subscription) -> None:
    await databases.lower_limits(tx, subscription.limits.connections)


@on(Membership.changed)
async def grant_access(tx: Tx, membership: Membership) -> None:
    """One reaction for joining, changing and leaving, so that nobody who left is let in by an older change."""
    if tx.change and tx.change.op == "delete":
        await grants.revoke(tx, membership.user_id)
    else:
        await grants.grant(tx, membership.user_id, membership.role)


def _reports_topics(settings: Settings) -> list[str]:
    return [f"dataplane.{id}.reports" for id in settings.data_planes.split(",")]


@listen(_reports_topics)
async def hear_the_agents(database: Database, record: Record) -> None:
    try:
        said = from_agent_json.validate_json(record.value or b"")
    except ValidationError as error:
        raise Undecodable(f"no report: {error.error_count()} errors, {error.errors(include_input=False)[0]['msg']}") from error
    if record.topic != f"dataplane.{said.data_plane}.reports":
        raise reports.WrongDataPlane(f"the data plane {said.data_plane} does not speak on {record.topic}")
    await (_hear_hello(database, said) if isinstance(said, Hello) else _hear_report(database, said))


async def _hear_hello(database: Database, hello: Hello) -> None:
    async with database.transaction() as tx:
        await data_planes.greet(tx, hello)


async def _hear_report(database: Database, report: Report) -> None:
    async with database.transaction(org=report.org_id, context=reports.context_of(report)) as tx:
        await reports.check(tx, report)
        await tx.enter(f"org:{report.org_id}")
        await reports.take(tx, report)
