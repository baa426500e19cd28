"""What the console does because time passes: it judges deadlines, and counts for Prometheus."""

from services.console import figures, flows
from shared.tx import Database
from shared.workers import housekeeping


@housekeeping(every_seconds=0.5)
async def judge_deadlines(database: Database) -> None:
    async with database.transaction() as tx, tx.in_bulk():
        await flows.refold(tx, await flows.due(tx))


@housekeeping(every_seconds=5)
async def count_flows(database: Database) -> None:
    async with database.transaction(readonly=True) as tx, tx.in_bulk():
        figures.standing(await flows.counts(tx))
