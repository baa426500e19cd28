"""The mesh under test, as the fault cases and the oracle reach it."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg

from deploy.plan import SERVICES
from deploy.stack import Mesh
from deploy.status import Document
from tests.faults.client import AWAY

CONSUMERS = SERVICES


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

    async def healthy(self, timeout: float = 90) -> None:
        await asyncio.to_thread(self.mesh.wait_healthy, timeout)

    async def until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        await asyncio.to_thread(self.mesh.wait, condition, timeout, what)

    @contextlib.asynccontextmanager
    async def down(self, *names: str) -> AsyncIterator[None]:
        """These processes are killed and stay down inside."""
        for name in names:
            self.mesh.hold(name)
        try:
            await self.kill(*names)
            yield
        finally:
            for name in names:
                self.mesh.release(name)

    async def rows(self, sql: str, *args: Any, url: str | None = None) -> list[dict[str, Any]]:
        """What an administrator sees in the control plane, or at another server. Waits for a server that is away."""
        while True:
            with contextlib.suppress(*AWAY):
                connection = await asyncpg.connect(url or self.document["postgres"]["url"], timeout=10)
                try:
                    return [dict(r) for r in await connection.fetch(sql, *args)]
                finally:
                    connection.terminate()
            await asyncio.sleep(0.3)

    @property
    def data_plane_url(self) -> str:
        return str(self.document["data_planes"][0]["url"])
