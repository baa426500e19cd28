"""Every table of every service, found in the catalog: its tenant's rows are for nobody else."""

import json
from typing import Any

import asyncpg
import pytest

from deploy.contracts import services
from tests.isolation.tables import Table, attempt, entered, every_table, rows
from tests.isolation.tenants import Tenant, look
from tests.mesh import TestMesh, eventually

EVERY_SERVICE = pytest.mark.parametrize("service", services())
_REFUSED = asyncpg.InsufficientPrivilegeError


@pytest.fixture(scope="session")
def tables(mesh: TestMesh) -> list[Table]:
    return every_table(mesh)


def of(tables: list[Table], service: str) -> list[Table]:
    """Those that hold rows of tenants and are within reach of the service's doors."""
    found = [t for t in tables if t.service == service and t.reachable and t.secured and not t.hidden]
    assert found
    return found


def about(who: Tenant, found: list[str]) -> list[str]:
    return [row for row in found if who.org_id in row or who.owner.user_id in row]


def test_every_table_is_closed_secured_or_shared_with_a_reason(tables: list[Table]) -> None:
    assert {t.service for t in tables} == set(services())
    open_ones = [str(t) for t in tables if t.reachable and not t.secured and len(t.reason or "") < 15]
    assert open_ones == []
    assert [str(t) for t in tables if t.kind not in ("r", "p")] == [], "a view sees with its owner's eyes: say here how it does not"


async def test_what_is_closed_is_closed(mesh: TestMesh, tables: list[Table]) -> None:
    closed = [t for t in tables if not t.reachable]
    assert {t.name for t in closed} >= {"changes", "shared_tables", "heads_sent"}
    assert {t.service for t in closed if t.name.startswith("changes_2")} == set(services()), "each part of the log is a table of its own"
    for service in services():
        async with entered(mesh, service, None) as connection:
            for table in (t for t in closed if t.service == service):
                assert isinstance(await attempt(connection, f"SELECT 1 FROM {table.sql}"), _REFUSED), str(table)


@EVERY_SERVICE
async def test_a_service_may_be_itself_and_nobody_else(mesh: TestMesh, service: str) -> None:
    async with entered(mesh, service, None) as connection:
        roles = await connection.fetch("SELECT rolname FROM pg_roles WHERE pg_has_role(current_user, oid, 'MEMBER')")
        assert {r[0] for r in roles} == {f"{service}_app", f"{service}_replica"}
        schemas = await connection.fetch("SELECT nspname FROM pg_namespace WHERE has_schema_privilege(oid, 'USAGE, CREATE') AND nspname !~ '^pg_'")
        assert {r[0] for r in schemas} == {service, "information_schema"}
        assert not await connection.fetchval("SELECT has_schema_privilege($1, 'CREATE')", service)


@EVERY_SERVICE
async def test_rows_are_seen_by_their_tenant_alone(mesh: TestMesh, tables: list[Table], ann: Tenant, eve: Tenant, service: str) -> None:
    tenants_own = [t for t in of(tables, service) if not t.reason]
    by_ann, by_eve, by_nobody = [await seen(mesh, service, who, tenants_own) for who in (ann, eve, None)]
    for table in tenants_own:
        name = str(table)
        assert about(ann, by_ann[name]), f"give Ann a row of {name} (tests/isolation/tenants.py)"
        assert about(eve, by_eve[name]), name
        assert about(ann, by_eve[name]) == [], name
        assert by_nobody[name] == [], name


async def seen(mesh: TestMesh, service: str, who: Tenant | None, tables: list[Table]) -> dict[str, list[str]]:
    async with entered(mesh, service, who) as connection:
        return {str(table): await rows(connection, table) for table in tables}


@EVERY_SERVICE
async def test_rows_are_changed_and_deleted_by_their_tenant_alone(mesh: TestMesh, tables: list[Table], ann: Tenant, eve: Tenant, service: str) -> None:
    changeable = [t for t in of(tables, service) if t.changeable]
    async with entered(mesh, service, ann, writing=True) as connection:
        for table in changeable:
            assert about(ann, met(await attempt(connection, change(table)))), str(table)
            assert _is_referred_to(deleted := await attempt(connection, delete(table))) or about(ann, met(deleted)), str(table)
    async with entered(mesh, service, eve, writing=True) as connection:
        for table in changeable:
            assert about(ann, met(await attempt(connection, change(table)))) == [], str(table)
            assert _is_referred_to(deleted := await attempt(connection, delete(table))) or about(ann, met(deleted)) == [], str(table)
    async with entered(mesh, service, None) as connection:
        for table in changeable:
            assert met(await attempt(connection, change(table))) == [], str(table)
            assert met(await attempt(connection, delete(table))) == [], str(table)


def change(table: Table) -> str:
    return f'UPDATE {table.sql} t SET "{table.changeable[0]}" = t."{table.changeable[0]}" RETURNING to_jsonb(t)::text'


def delete(table: Table) -> str:
    return f"DELETE FROM {table.sql} t RETURNING to_jsonb(t)::text"


def met(answer: list[str] | asyncpg.PostgresError) -> list[str]:
    assert not isinstance(answer, asyncpg.PostgresError), repr(answer)
    return answer


def _is_referred_to(answer: list[str] | asyncpg.PostgresError) -> bool:
    """The row was within reach, and stays because another refers to it."""
    return isinstance(answer, asyncpg.ForeignKeyViolationError)


@EVERY_SERVICE
async def test_nobody_else_writes_a_row_into_a_tenant(mesh: TestMesh, tables: list[Table], ann: Tenant, eve: Tenant, service: str) -> None:
    forged: list[tuple[Table, dict[str, Any]]] = []
    async with entered(mesh, service, ann, writing=True) as connection:
        for table in (t for t in of(tables, service) if t.insertable):
            row = max(map(json.loads, about(ann, await rows(connection, table))), key=lambda r: r.get("org_id") == ann.org_id)
            assert not isinstance(await attempt(connection, *_insert(table, row)), _REFUSED), str(table)
            forged += [(table, row), *((table, {**row, c: eve.owner.user_id}) for c in {"user_id", "person"} & row.keys() if "org_id" in row)]
    for who in (eve, None):
        async with entered(mesh, service, who, writing=True) as connection:
            for table, row in forged:
                assert isinstance(await attempt(connection, *_insert(table, row)), _REFUSED), f"{table}: {row}"


def _insert(table: Table, row: dict[str, Any]) -> tuple[str, str]:
    columns = ", ".join(f'"{c}"' for c in table.columns)
    sql = f"INSERT INTO {table.sql} ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::{table.sql}, $1::text::jsonb) RETURNING 1::text"
    return sql, json.dumps(row)


@EVERY_SERVICE
async def test_no_row_of_ones_own_is_moved_to_another_tenant(mesh: TestMesh, tables: list[Table], ann: Tenant, eve: Tenant, service: str) -> None:
    """Which person of its own a row speaks of is the tenant's affair."""
    found = of(tables, service)
    moves = [(t, "org_id", ann.org_id) for t in found] + [(t, "user_id", ann.owner.user_id) for t in found if "org_id" not in t.columns]
    async with entered(mesh, service, eve, writing=True) as connection:
        for table, column, new in (m for m in moves if m[1] in m[0].changeable):
            moved = await attempt(connection, f"UPDATE {table.sql} t SET {column} = $1::text::uuid RETURNING to_jsonb(t)::text", new)
            assert isinstance(moved, _REFUSED), f"{table}: {moved}"


@pytest.fixture
def unfinished_flow(mesh: TestMesh, ann: Tenant) -> None:
    """One of Ann's flows is still followed by its rows."""
    followed = "SELECT FROM console.flow_bindings b JOIN console.flows f ON f.id = b.flow_id WHERE f.org_id = $1::text::uuid"
    eventually(lambda: look(mesh, "console", followed, ann.org_id))


@pytest.mark.usefixtures("unfinished_flow")
async def test_what_only_the_console_itself_reads_is_hidden_from_everybody(mesh: TestMesh, tables: list[Table], ann: Tenant) -> None:
    hidden = [t for t in tables if t.hidden and t.secured and t.reachable]
    assert {str(t) for t in hidden} == {"console.troubles", "console.flow_bindings", "console.orders"}
    async with entered(mesh, "console", ann) as connection:
        for table in hidden:
            assert await rows(connection, table) == [], str(table)


async def test_the_oracle_turns_red_when_a_policy_is_missing(mesh: TestMesh, tables: list[Table], ann: Tenant, eve: Tenant) -> None:
    """The probe of the other tests, asked of a table whose protection is off for the length of a transaction."""
    invitations = next(t for t in tables if str(t) == "org.invitations")
    administrator = await asyncpg.connect(mesh.mesh.databases.url("org", "owner"))
    transaction = administrator.transaction()
    await transaction.start()
    try:
        await administrator.execute("SELECT enter($1::text::uuid, NULL, '{}', '{}')", eve.org_id)
        assert about(ann, await rows(administrator, invitations)) == [], "forced: its owner is no exception"
        await administrator.execute("ALTER TABLE org.invitations NO FORCE ROW LEVEL SECURITY")
        assert about(ann, await rows(administrator, invitations)) != []
    finally:
        await transaction.rollback()
        await administrator.close()
