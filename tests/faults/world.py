"""A mesh with people on it who are owed something: what a fault strikes."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from deploy.stack import Mesh
from tests.faults.client import Client
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

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, mesh: Mesh, seed: int, size: Size) -> AsyncIterator["World"]:
        """The people are settled, nobody does anything yet."""
        lab, ledger = Lab.of(mesh), Ledger()
        async with Client.open(lab.document, ledger) as client:
            load = Load(client, ledger, seed, size)
            await load.settle()
            yield cls(lab, load, Oracle(lab, ledger))
