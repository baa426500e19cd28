"""What the tests of the bus do with it: write a change into a database, read it from Kafka."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from confluent_kafka import Consumer

from deploy.stack import Mesh


def ask(mesh: Mesh, sql: str, *args: object) -> Any:
    """One statement of an administrator of the control plane's database; its value."""

    async def answer() -> Any:
        connection = await asyncpg.connect(mesh.status()["postgres"]["url"])
        try:
            return await connection.fetchval(sql, *args)
        finally:
            await connection.close()

    return asyncio.run(answer())


def write_change(mesh: Mesh, stream: str, service: str = "org") -> None:
    """One record into the change log of a service, as its trigger would write it."""
    ask(mesh, f"INSERT INTO \"{service}\".changes (stream, seq, payload) VALUES ($1, 1, '{{}}')", stream)


@contextmanager
def consumer(mesh: Mesh, user: str, group: str, topic: str) -> Iterator[Consumer]:
    refresh = {"auto.offset.reset": "earliest", "topic.metadata.refresh.interval.ms": 500, "log_level": 0}
    reader = Consumer({**mesh.broker.client(user), **refresh, "group.id": group})
    reader.subscribe([topic])
    try:
        yield reader
    finally:
        reader.close()


def travels(mesh: Mesh, stream: str, service: str = "org", within: float = 30) -> bool:
    """Whether a change of that stream is in Kafka in the end."""
    deadline = time.monotonic() + within
    with consumer(mesh, "admin", f"test {time.monotonic_ns()}", f"{service}.changes") as reader:
        while time.monotonic() < deadline:
            message = reader.poll(0.2)
            if message is not None and message.error() is None and message.key() == stream.encode():
                return True
    return False


def lose_the_slot(mesh: Mesh) -> None:
    """Postgres gives up the connector's slot, as it does with one that keeps more of its log than it may."""

    def is_lost() -> bool:
        ask(mesh, "CHECKPOINT")
        return slot(mesh) == "lost"

    ask(mesh, "ALTER SYSTEM SET idle_replication_slot_timeout = '1s'")
    ask(mesh, "SELECT pg_reload_conf()")
    try:
        mesh.wait(is_lost, 30, "a slot that Postgres has given up")
    finally:
        ask(mesh, "ALTER SYSTEM RESET idle_replication_slot_timeout")
        ask(mesh, "SELECT pg_reload_conf()")


def slot(mesh: Mesh) -> str:
    """How the connector's slot is: ``lost``, ``read`` by somebody now, or ``kept`` for who reads it later."""
    return str(ask(mesh, "SELECT CASE WHEN wal_status = 'lost' THEN 'lost' WHEN active THEN 'read' ELSE 'kept' END FROM pg_replication_slots"))


def stop_postgres(mesh: Mesh) -> Path:
    """Its data, left alone until it is released."""
    mesh.hold("postgres")
    pid = mesh.kill("postgres", signal.SIGINT)
    mesh.wait(lambda: not alive(pid), 15, "Postgres to end")
    return mesh.databases.server.data


def restore_postgres(mesh: Mesh, backup: Path) -> None:
    """As from an archive: what was written since the backup is lost, with the slots; the database goes on in another timeline."""
    data = stop_postgres(mesh)
    for slot in (backup / "pg_replslot").iterdir():
        shutil.rmtree(slot)
    user = data.stat()
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    (data / "recovery.signal").touch()
    with (data / "postgresql.auto.conf").open("a") as settings:
        settings.write("restore_command = 'false'\nwal_retrieve_retry_interval = '100ms'\n")
    for path in (data, *data.rglob("*")):
        os.chown(path, user.st_uid, user.st_gid)
    mesh.release("postgres")
    mesh.wait(lambda: bool(mesh.status()["postgres"]["state"] == "up"), 30, "Postgres to be up")


def pids(mesh: Mesh) -> set[int]:
    status = mesh.status()
    parts = [status["kafka"], status["connect"], status["postgres"], status["supervisor"], *status["data_planes"]]
    return {part["pid"] for part in parts if part["pid"]}


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
