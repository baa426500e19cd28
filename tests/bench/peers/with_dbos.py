"""DBOS: one workflow of three steps. ``python -m tests.bench.peers.with_dbos URL SECONDS RUNS``."""

import asyncio
import sys

import asyncpg
from dbos import DBOS, DBOSConfig

from tests.bench.peers.many import measure


async def main(url: str, seconds: float, runs: int) -> None:
    config: DBOSConfig = {"name": "bench", "system_database_url": url, "log_level": "ERROR"}
    DBOS(config=config)
    pool = await asyncpg.create_pool(url, min_size=8, max_size=32)

    @DBOS.step()
    async def hop(number: int, step: int) -> None:
        await pool.execute("INSERT INTO hops VALUES ($1, $2)", number, step)

    @DBOS.workflow()
    async def three_hops(number: int) -> None:
        for step in range(3):
            await hop(number, step)

    DBOS.launch()
    await pool.execute("CREATE TABLE IF NOT EXISTS hops (number bigint, step int)")
    await measure(three_hops, seconds, runs)
    DBOS.destroy()
    await pool.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
