"""What the tests of the bus do with it: write a change into a database, read it from Kafka."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import psutil
from confluent_kafka import Consumer

from deploy.stack import Mesh


def write_change(mesh: Mesh, stream: str, service: str = "org") -> None:
    """One record into the change log of a service, as its trigger would write it."""

    async def write() -> None:
        connection = await asyncpg.connect(mesh.status()["postgres"]["url"])
        await connection.execute(f"INSERT INTO \"{service}\".changes (stream, seq, payload) VALUES ($1, 1, '{{}}')", stream)
        await connection.close()

    asyncio.run(write())


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


def pids(mesh: Mesh) -> set[int]:
    status = mesh.status()
    parts = [status["kafka"], status["connect"], status["postgres"], status["supervisor"], *status["data_planes"]]
    return {part["pid"] for part in parts if part["pid"]}


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
