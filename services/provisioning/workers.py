"""What provisioning does outside Postgres, and when time has passed."""

from uuid import UUID

from services.provisioning import data_planes, databases, feed, kafka, kafka_grants, logins, observations, tenants
from shared.failpoints import failpoint
from shared.metrics import metrics
from shared.tx import Database, Tx
from shared.workers import Work, housekeeping, timer, worker


@worker(kafka_grants.MAKE)
async def open_the_feed(work: Work) -> None:
    async with work.transaction() as tx:
        grant = await kafka_grants.get(tx, work.id)
    await kafka.make_feed(grant.topic, grant.principal)
    failpoint("feed")
    async with work.transaction() as tx:
        await kafka_grants.granted(tx, grant.id)
        await tenants.open_feed(tx)


@timer(databases.PURGE)
async def purge_the_database(tx: Tx, database_id: UUID) -> None:
    await databases.purge(tx, database_id)


@timer(feed.unobserved("tenant"))
async def say_the_tenant_again(tx: Tx, org_id: UUID) -> None:
    await observations.repeat(tx, tenants.KIND, org_id)


@timer(feed.unobserved("database"))
async def say_the_database_again(tx: Tx, database_id: UUID) -> None:
    await observations.repeat(tx, databases.KIND, database_id)


@timer(feed.unobserved("login"))
async def say_the_login_again(tx: Tx, login_id: UUID) -> None:
    await observations.repeat(tx, logins.KIND, login_id)


@housekeeping(every_seconds=240)
async def keep_kafka_near(_: Database) -> None:
    await kafka.keep_connected()


@housekeeping(every_seconds=10)
async def tell_who_was_heard(database: Database) -> None:
    async with database.transaction(readonly=True) as tx:
        for data_plane, at in (await data_planes.heard(tx)).items():
            metrics.agent_heard.labels(data_plane).set(at.timestamp())


@housekeeping(every_seconds=3600)
async def forget_what_was_said(database: Database) -> None:
    async with database.transaction() as tx:
        await feed.forget(tx)
