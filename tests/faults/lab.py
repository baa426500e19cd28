"""The mesh under test, as the fault cases and the oracle reach it."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import psutil

from deploy import process
from deploy.errors import MeshError
from deploy.stack import Mesh
from deploy.status import Document
from deploy.units import units

GONE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""A server that is not there now."""


@dataclass
class Lab:
    """One mesh. What its object of the deployment does is done in a thread, so that the load goes on."""

    mesh: Mesh
    document: Document

    @classmethod
    def of(cls, mesh: Mesh) -> "Lab":
        return cls(mesh, mesh.status())

    async def kill(self, *names: str, number: int = signal.SIGKILL) -> None:
        """All of them at once."""
        for name in names:
            self.mesh.kill(name, number)

    async def healthy(self, timeout: float = 90) -> None:  # noqa: ASYNC109 - handed on
        await asyncio.to_thread(self.mesh.wait_healthy, timeout)

    async def until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:  # noqa: ASYNC109 - handed on
        await asyncio.to_thread(self.mesh.wait, condition, timeout, what)

    @contextlib.asynccontextmanager
    async def down(self, *names: str, number: int = signal.SIGKILL) -> AsyncIterator[None]:
        """These processes are killed, or ended by another signal, and are down inside."""
        for name in names:
            self.mesh.hold(name)
        try:
            await self.end(*names, number=number)
            yield
        finally:
            for name in names:
                self.mesh.release(name)

    async def end(self, *names: str, number: int = signal.SIGKILL) -> None:
        """Ends them, and waits until nobody meets them any more: Postgres takes one of ours that nobody has waited for for its living predecessor."""
        there = {name: pid for name in names if (pid := self.mesh.pid(name))}
        ending = [psutil.Process(pid) for pid in there.values()]
        await self.kill(*there, number=number)
        _, alive = await asyncio.to_thread(psutil.wait_procs, ending, timeout=30)
        if alive:
            raise MeshError(f"these did not end: {alive}")

    @contextlib.asynccontextmanager
    async def replicas(self, *services: str) -> AsyncIterator[None]:
        """These services run twice inside, as ``org`` and ``org-2``."""
        await asyncio.to_thread(Mesh.start, self.mesh.state.root, replicas=dict.fromkeys(services, 2))
        try:
            yield
        finally:
            await asyncio.to_thread(Mesh.start, self.mesh.state.root, replicas={})

    @contextlib.asynccontextmanager
    async def otherwise(
        self, names: tuple[str, ...], change: Callable[[process.Command], process.Command], number: int = signal.SIGKILL
    ) -> AsyncIterator[None]:
        """Inside, these processes run with another command; afterwards the supervisor starts them as they were."""
        table = {u.name: u for u in units(self.mesh.state, self.mesh.plan)}
        async with self.down(*names, number=number):
            for name in names:
                process.start(self.mesh.state, change(table[name].command()))
            await self.healthy()
            yield
            await self.end(*names, number=number)

    async def run(self, sql: str, url: str | None = None) -> None:
        """A statement that cannot be inside of a transaction, or answers nothing."""
        await self.rows(sql, url=url)

    async def rows(self, sql: str, *args: Any, url: str | None = None) -> list[dict[str, Any]]:
        """What an administrator sees in the control plane, or at another server. Waits for a server that is away."""
        while True:
            with contextlib.suppress(*GONE):
                connection = await asyncpg.connect(url or self.document["postgres"]["url"], timeout=10)
                try:
                    return [dict(r) for r in await connection.fetch(sql, *args)]
                finally:
                    connection.terminate()
            await asyncio.sleep(0.3)

    @property
    def data_plane_url(self) -> str:
        return str(self.document["data_planes"][0]["url"])
