"""The guide to a new flow is true: what it says is done to a copy of the project, and everything there holds."""

import asyncio
import re
from concurrent.futures import Future

import asyncpg
import pytest

from tests.contracts.guide import FENCE, GUIDE, STEPS
from tests.mesh import TestMesh


def test_every_snippet_says_where_it_goes() -> None:
    placed = [text for _, text in STEPS.values()]
    assert len(placed) == 12
    assert [text for kind, text in FENCE.findall(GUIDE) if kind != "sh" and text not in placed] == []


@pytest.mark.timeout(300)  # under fifteen seconds by itself; the type checker alone takes longer when it knows nothing yet, or beside other work
def test_who_follows_the_guide_has_a_flow_that_keeps_every_rule(followed: Future[None]) -> None:
    followed.result()


def test_the_table_of_the_guide_is_made_and_its_rows_travel(mesh: TestMesh) -> None:
    """In the mesh's own database, taken back at the end."""
    sql = next(text for path, (_, text) in STEPS.items() if path.endswith(".sql"))
    insert = re.search(r'"(INSERT INTO [^"]+)"', STEPS["services/org/questions.py"][1])
    assert insert

    async def try_out() -> str | None:
        connection = await asyncpg.connect(mesh.mesh.databases.url("org", "owner"))
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(sql)
            org_id = await connection.fetchval("SELECT gen_random_uuid()")
            await connection.execute("SELECT enter($1, NULL, '{}', $2)", org_id, [f"org:{org_id}"])
            await connection.execute(insert[1], org_id, "May we?")
            return await connection.fetchval("SELECT payload FROM changes WHERE stream = $1", f"org:{org_id}")
        finally:
            await transaction.rollback()
            await connection.close()

    assert '"May we?"' in (asyncio.run(try_out()) or "")
