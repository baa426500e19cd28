"""A mesh with people on it who are owed something: what a fault strikes."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from deploy.stack import Mesh
from tests.faults.client import Client, Who
from tests.faults.lab import Lab
from tests.faults.ledger import Ledger
from tests.faults.load import Load, Size
from tests.faults.oracle import Oracle


@dataclass
class World:
    """One mesh, its load, and the oracle that judges it by what the load was promised."""

    lab: Lab
    load: Load
    oracle: Oracle
    repeated_mails: int = 0
    """Mails that came twice in the cases so far."""
    afterwards: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    """What is put back when nobody needs the mesh any more."""

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, mesh: Mesh, seed: int, size: Size) -> AsyncIterator["World"]:
        """The people are settled, nobody does anything yet."""
        lab, ledger = Lab.of(mesh), Ledger()
        async with Client.open(lab.document, ledger) as client:
            load = Load(client, ledger, seed, size)
            await load.settle()
            world = cls(lab, load, Oracle(lab, ledger))
            try:
                async with world.afterwards:
                    yield world
            finally:
                await load.end()

    def surprise(self, what: str) -> None:
        """Something that no promise allows: the case is red."""
        self.load.ledger.surprises.append(what)

    async def order(self, path: str, **body: str) -> None:
        """What an operator orders through the console."""
        operator = Who("operator", token=self.lab.document["operator_token"])
        await self.load.client.send("POST", "console", path, body, operator)
