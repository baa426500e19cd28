"""On the data plane's own server: a login reaches its organization's database and nothing of anybody else."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tests.isolation.tenants import Tenant
from tests.mesh import TestMesh

SECRETS = (
    "SELECT rolpassword FROM pg_authid",
    "SELECT passwd FROM pg_shadow",
    "SELECT query FROM pg_stat_activity",
    "SELECT * FROM pg_locks",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT pg_ls_dir('.')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "CREATE FUNCTION read(text) RETURNS text LANGUAGE internal AS 'pg_read_file'",
    "CREATE SUBSCRIPTION mine CONNECTION 'host=127.0.0.1' PUBLICATION theirs WITH (connect = false)",
    "CREATE FOREIGN DATA WRAPPER mine",
    "SELECT lo_import('/etc/passwd')",
    "CREATE ROLE mine",
    "CREATE DATABASE mine",
    "CHECKPOINT",
)
"""What would show or reach what other tenants have on the same server."""

_ROLES = r"""
    SELECT r.rolname AS name, r.rolcreatedb OR r.rolcreaterole OR r.rolreplication OR r.rolbypassrls AS privileged,
           ARRAY(SELECT d.datname::text FROM pg_database d
                  WHERE d.datname <> 'template0' AND d.datname NOT LIKE 'mesh\_spare\_%' AND has_database_privilege(r.oid, d.oid, 'CONNECT')) AS enters,
           ARRAY(SELECT g.rolname::text FROM pg_roles g WHERE g.oid <> r.oid AND pg_has_role(r.oid, g.oid, 'MEMBER')) AS acts_as
      FROM pg_roles r WHERE NOT r.rolsuper AND r.rolname !~ '^pg_'"""
"""Closed databases count. What has no tenant yet is closed, and may be half made."""


@asynccontextmanager
async def session(url: str, database: str | None = None) -> AsyncIterator[asyncpg.Connection]:
    parts = urlsplit(url)
    connection = await asyncpg.connect(urlunsplit(parts._replace(path=f"/{database}")) if database else url, timeout=5)
    try:
        yield connection
    finally:
        await connection.close()


def server_of(mesh: TestMesh, tenant: Tenant) -> str:
    """The administrator's address of the server that holds the tenant's database."""
    port = urlsplit(tenant.dsn).port
    return str(next(plane["url"] for plane in mesh.mesh.status()["data_planes"] if plane["port"] == port))


async def test_a_login_enters_its_own_database_and_no_other(mesh: TestMesh, ann: Tenant, eve: Tenant) -> None:
    own = urlsplit(ann.dsn).path.removeprefix("/")
    async with session(ann.dsn) as connection:
        assert await connection.fetchval("SELECT current_database()") == own
    for server in {server_of(mesh, ann), server_of(mesh, eve)}:
        async with session(server) as administrator:
            others = {r[0] for r in await administrator.fetch("SELECT datname FROM pg_database WHERE datallowconn")} - {own}
        assert "postgres" in others
        there = urlsplit(ann.dsn)._replace(netloc=f"{urlsplit(ann.dsn).netloc.rpartition('@')[0]}@{urlsplit(server).netloc.rpartition('@')[2]}")
        for name in others:
            with pytest.raises(asyncpg.PostgresError):
                async with session(urlunsplit(there), name):
                    pass
    assert urlsplit(eve.dsn).path != f"/{own}"


async def test_what_a_login_can_read_of_others_names_says_nothing_of_them(mesh: TestMesh, ann: Tenant, eve: Tenant) -> None:
    """The names of a server's databases and roles, and the comments on them."""
    del mesh, eve
    async with session(ann.dsn) as connection:
        databases = {r[0] for r in await connection.fetch("SELECT datname FROM pg_database")}
        roles = {r[0] for r in await connection.fetch("SELECT rolname FROM pg_roles")}
        comments = {r[0] for r in await connection.fetch("SELECT description FROM pg_shdescription")}
    said = {*databases, *roles} - {"postgres", "template0", "template1"}
    telling = [name for name in said if not re.fullmatch(r"((db_[0-9a-f]{20}|mesh_spare_[0-9a-f]{16})(_admin|_member)?|u_[0-9a-f]{20}|pg_\w+)", name)]
    assert not telling
    assert not [c for c in comments if not re.fullmatch(r"mesh:(spare|[0-9a-f-]{36}/[0-9a-f-]{36}(:group)?)|[a-z ]+", c)]


async def test_a_login_is_itself_and_its_own_organization(mesh: TestMesh, ann: Tenant, eve: Tenant) -> None:
    login, own = urlsplit(ann.dsn).username, urlsplit(ann.dsn).path.removeprefix("/")
    async with session(server_of(mesh, ann)) as administrator:
        roles = [r[0] for r in await administrator.fetch("SELECT rolname FROM pg_roles")]
    async with session(ann.dsn) as connection:
        await connection.execute("RESET ROLE")
        may = {r[0] for r in await connection.fetch("SELECT rolname FROM pg_roles WHERE pg_has_role(session_user, oid, 'MEMBER')")}
        assert may == {login, f"{own}_admin"}
        for role in set(roles) - may:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f'SET ROLE "{role}"')


async def test_every_role_of_the_server_has_one_database_at_most_and_no_power_over_others(mesh: TestMesh, ann: Tenant, eve: Tenant) -> None:
    """All there are, by the server's own word; the other tests try what two of them may do."""
    entered: dict[str, list[str]] = {}
    for server in {server_of(mesh, ann), server_of(mesh, eve)}:
        async with session(server) as administrator:
            assert await administrator.fetchval("SELECT array_agg(rolname::text) FROM pg_roles WHERE rolsuper") == ["postgres"]
            roles = await administrator.fetch(_ROLES)
        for role in roles:
            assert len(role["enters"]) <= 1, role
            assert {*role["acts_as"]} <= {f"{database}_{group}" for database in role["enters"] for group in ("admin", "member")}, role
            assert not role["privileged"], role
            entered[role["name"]] = role["enters"]
    for who in (ann, eve):
        assert entered[urlsplit(who.dsn).username or ""] == [urlsplit(who.dsn).path.removeprefix("/")]


async def test_a_login_changes_no_role_and_no_database_of_others(mesh: TestMesh, ann: Tenant, eve: Tenant) -> None:
    if server_of(mesh, ann) != server_of(mesh, eve):
        pytest.skip("not run: the two tenants are on two servers, where they have nothing to reach")
    theirs, database = urlsplit(eve.dsn).username, urlsplit(eve.dsn).path.removeprefix("/")
    own = urlsplit(ann.dsn)
    async with session(eve.dsn) as other, session(ann.dsn) as connection:
        pid = await other.fetchval("SELECT pg_backend_pid()")
        for sql in (
            f"ALTER ROLE \"{theirs}\" PASSWORD 'mine'", f'ALTER ROLE "{theirs}" NOLOGIN', f'DROP ROLE "{theirs}"',
            f'GRANT "{database}_admin" TO "{own.username}"', f'GRANT "{own.path[1:]}_admin" TO "{theirs}"',
            f'ALTER DATABASE "{database}" CONNECTION LIMIT 0', f'DROP DATABASE "{database}"', f'GRANT CONNECT ON DATABASE "{database}" TO PUBLIC',
            f"SELECT pg_terminate_backend({pid})", f"SELECT pg_cancel_backend({pid})",
        ):  # fmt: skip
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(sql)
        assert await other.fetchval("SELECT true")


async def test_a_login_sees_no_secret_of_the_server(mesh: TestMesh, ann: Tenant) -> None:
    async with session(server_of(mesh, ann)) as administrator:
        verifiers = [r[0] for r in await administrator.fetch("SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL")]
        assert len(verifiers) >= 2
    async with session(ann.dsn) as connection:
        shown = await connection.fetch("SELECT rolpassword FROM pg_roles")
        assert {r[0] for r in shown} == {"********"}
        for sql in SECRETS:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(sql)
