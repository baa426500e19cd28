"""A pooled connection never carries the previous request's identity, however the previous request ended."""

import asyncio
import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx
import pytest

from services.org import api
from shared.http.app import create_app
from shared.tx import Database
from tests.isolation.tenants import Tenant
from tests.mesh import TestMesh

REQUESTS = 150


@asynccontextmanager
async def through_one_connection(mesh: TestMesh) -> AsyncIterator[httpx.AsyncClient]:
    """The org service's doors over a pool of one, in this process."""
    database = await Database.connect(mesh.mesh.databases.url("org", "app"), "org", 1)
    app = create_app("org", api.router)
    app.state.database = database
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://org") as client:
            yield client
    finally:
        await database.close()


async def answered(client: httpx.AsyncClient, method: str, path: str, **kwargs: Any) -> httpx.Response:
    """Asks again after a 503: what a cancelled request asks PostgreSQL to cancel may be the next statement on its connection already."""
    while (answer := await client.request(method, path, **kwargs)).status_code == 503:
        assert answer.headers["Retry-After"]
    return answer


async def test_interleaved_requests_of_two_tenants_through_one_connection_see_their_own(mesh: TestMesh, ann: Tenant, eve: Tenant) -> None:
    async with through_one_connection(mesh) as client:

        async def ask(number: int) -> None:
            who, other = (ann, eve) if number % 2 else (eve, ann)
            headers = {"Authorization": who.owner.headers["Authorization"]}
            listed = await answered(client, "GET", "/orgs", headers=headers)
            seen = [o["id"] for o in listed.json()["items"]]
            assert who.org_id in seen
            assert other.org_id not in seen
            assert (await answered(client, "GET", f"/orgs/{who.org_id}", headers=headers)).json()["id"] == who.org_id
            assert (await answered(client, "GET", f"/orgs/{other.org_id}", headers=headers)).status_code == 404
            assert (await answered(client, "GET", f"/orgs/{who.org_id}/members")).status_code == 401, "nobody, right after somebody"
            refused = await answered(client, "PATCH", f"/orgs/{who.org_id}", headers=headers | {"If-Match": '"another"'}, json={"name": "No"})
            assert refused.status_code == 412, "a transaction that is taken back"

        async def walk_away(number: int) -> None:
            headers = {"Authorization": (ann if number % 2 else eve).owner.headers["Authorization"]}
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(client.get("/orgs", headers=headers), timeout=0.002 * (number % 20))

        await asyncio.gather(*(ask(n) if n % 3 else walk_away(n) for n in range(REQUESTS)))


async def read_in_turns(database: Database, ann: Tenant, eve: Tenant) -> None:
    """Transactions of both tenants at once, some of which fail or are cancelled; between them someone who says no name at all."""

    async def read(number: int) -> None:
        who = (ann, eve)[number % 2]
        with contextlib.suppress(_Failed, TimeoutError):
            async with asyncio.timeout(0.001 * number if number % 5 == 0 else 20), database.transaction(readonly=True) as tx:
                await tx.enter(org=UUID(who.org_id), user=UUID(who.owner.user_id))
                assert {str(r["org_id"]) for r in await tx.records("SELECT org_id FROM invitations")} == {who.org_id}
                if number % 7 == 0:
                    raise _Failed

    async def nobody() -> None:
        async with database.pool.acquire() as connection, connection.transaction(readonly=True):
            assert await connection.fetch("SELECT org_id FROM invitations") == []
            assert not await connection.fetchval("SELECT current_setting('app.org_id', true) || current_setting('app.user_id', true)")

    await asyncio.gather(*(nobody() if n % 3 == 0 else read(n) for n in range(REQUESTS)))


class _Failed(Exception):
    pass


async def test_transactions_that_fail_or_are_cancelled_leave_nobody_behind(mesh: TestMesh, ann: Tenant, eve: Tenant) -> None:
    database = await Database.connect(mesh.mesh.databases.url("org", "app"), "org", 1)
    try:
        await read_in_turns(database, ann, eve)
    finally:
        await database.close()


@contextmanager
def pgbouncer(url: str) -> Iterator[str]:
    """The address of a PgBouncer in transaction mode that has one connection to the database."""
    binary = shutil.which("pgbouncer")
    if binary is None:
        pytest.skip("not run: pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    there = urlsplit(url)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="mesh-pgbouncer-", dir="/var/tmp"))
    (folder / "users").write_text(f'"{there.username}" "{there.password}"\n')
    (folder / "ini").write_text(
        f"[databases]\n* = host={there.hostname} port={there.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {folder}/users\n"
        "pool_mode = transaction\ndefault_pool_size = 1\nmax_client_conn = 50\nignore_startup_parameters = search_path\n"
    )
    user = pwd.getpwnam("nobody") if os.getuid() == 0 else None
    if user:
        for path in (folder, *folder.iterdir()):
            os.chown(path, user.pw_uid, user.pw_gid)
    process = subprocess.Popen([binary, "-q", str(folder / "ini")], cwd="/", user=user and user.pw_uid, group=user and user.pw_gid)
    try:
        _await_port(port, process)
        yield there._replace(netloc=f"{there.username}:{there.password}@127.0.0.1:{port}").geturl()
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def _await_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, "pgbouncer ended"
            assert time.monotonic() < deadline, "pgbouncer does not listen"
            time.sleep(0.05)
        else:
            return


async def test_through_a_pooler_in_transaction_mode_it_is_the_same(mesh: TestMesh, ann: Tenant, eve: Tenant) -> None:
    with pgbouncer(mesh.mesh.databases.url("org", "app")) as url:
        pool = await asyncpg.create_pool(url, min_size=8, max_size=8, statement_cache_size=0, reset=_nothing)
        try:
            assert len({await _server_process(pool) for _ in range(8)}) == 1, "one connection carries all of them"
            await read_in_turns(Database(pool, "org"), ann, eve)
        finally:
            await pool.close()


async def _server_process(pool: asyncpg.Pool) -> int:
    async with pool.acquire() as connection, connection.transaction():
        return int(await connection.fetchval("SELECT pg_backend_pid()"))


async def _nothing(_: asyncpg.Connection) -> None:
    """As the kit's own pool: nothing is left that would have to be reset."""
