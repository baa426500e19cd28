"""What is there already is said once more, or met for the first time, while everybody goes on."""

import sys
from dataclasses import replace

import asyncpg

from deploy import process
from deploy.plan import SERVICES
from tests.faults.newcomer import TABLES
from tests.faults.registry import case, soon
from tests.faults.world import World

_PATIENCE = 90.0


async def _restated(world: World, *services: str) -> None:
    """Orders it, and waits until nothing of it is left to be said. Raises NeverHit when nothing was."""
    before = {service: await _said(world, service) for service in services}
    for service in services:
        await world.order(f"/services/{service}/restate", reason="a fault case")

    async def done() -> bool:
        for service in services:
            if await _said(world, service) == before[service] or await world.lab.rows(f'SELECT FROM "{service}".restatements'):
                return False
        return True

    await soon(done, _PATIENCE, f"{', '.join(services)} to restate all they have")


async def _said(world: World, service: str) -> int:
    rows = await world.lab.rows(f"""SELECT count(*) AS n FROM "{service}".changes WHERE payload::json ->> 'table' = '_restate'""")
    return int(rows[0]["n"])


@case("every service restates all that it has")
async def everything_restated(world: World) -> None:
    await _restated(world, *SERVICES)


_MET = """
WITH made AS (
    SELECT DISTINCT ON (stream) substr(stream, 5)::uuid AS org_id, (payload::json ->> 'at')::timestamptz AS at
    FROM org.changes WHERE payload::json ->> 'table' = 'organizations' AND payload::json ->> 'op' = 'insert' ORDER BY stream, seq),
noted AS (
    SELECT m.org_id, m.at >= (SELECT since FROM billing.activations WHERE reaction = 'billing.greet_the_new_organization') AS is_new,
           count(*) FILTER (WHERE n.how = 'met') AS met, count(*) FILTER (WHERE n.how = 'greeted') AS greeted
    FROM made m LEFT JOIN billing.newcomers n USING (org_id) WHERE m.at < now() - interval '10 seconds' GROUP BY 1, 2)
SELECT count(*) FILTER (WHERE NOT is_new) AS old, count(*) FILTER (WHERE is_new) AS new,
       count(*) FILTER (WHERE met = 0 OR (is_new AND greeted = 0)) AS missing,
       count(*) FILTER (WHERE greeted > 1 OR (NOT is_new AND greeted > 0)) AS surplus
FROM noted"""


@case("a new reaction and a new copy meet old data")
async def newcomers(world: World) -> None:
    """Billing gets a reaction that is to catch up, one that is not, and a copy of rows of a service that it did not read."""
    owner = await asyncpg.connect(world.lab.mesh.databases.url("billing", "owner"))
    try:
        await owner.execute(TABLES)
    finally:
        await owner.close()

    def change(command: process.Command) -> process.Command:
        return replace(command, argv=[sys.executable, "-m", "tests.faults.newcomer", "billing"])

    async with world.lab.otherwise(("billing",), change):
        await _restated(world, "org", "provisioning")
        found: dict[str, int] = {}

        async def all_met() -> bool:
            found.update((await world.lab.rows(_MET))[0])
            return bool(found["surplus"] or (found["old"] and found["new"] and not found["missing"]))

        await soon(all_met, _PATIENCE, f"every organization, old and new, to be met: {found}")
    if found["surplus"]:
        world.surprise(f"a new reaction acted more often than it should: {found}")
