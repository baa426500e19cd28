"""A fleet of agents in one process, each with a Postgres server that is only imagined: ``python -m tests.bench.fleet``.

All else is the agent itself: its users, clients and topics on the real Kafka, its desired state, plan and reports, its memory on disk.

Spoken to in lines: first a JSON object ``{"bootstrap", "folder", "passwords": {data plane: password}}``, then ``come`` and ``go``, each
answered when all have been started or have ended.
"""

import asyncio
import json
import logging
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from services.agent import catalog, databases, main
from services.agent.catalog import Actual, ActualDatabase, Owner
from services.agent.settings import Settings
from shared.log import set_up_logs


@dataclass
class Imagined:
    """What there would be on a server. It answers at once, and outlives its agent."""

    url: str
    databases: dict[str, ActualDatabase] = field(default_factory=dict)

    async def close(self) -> None:
        """Nothing to close."""


class NoSpares:
    """A database that is only imagined need not be made ahead."""

    def __init__(self, *_: Any) -> None: ...

    async def keep_filled(self) -> None:
        """Nothing to fill."""


_servers: dict[str, Imagined] = {}


def _server(url: str, _size: int) -> Imagined:
    return _servers.setdefault(url, Imagined(url))


async def _read(server: Imagined, _org_id: UUID | None = None, _names: object = ()) -> Actual:
    return Actual(dict(server.databases))


async def _create(server: Imagined, _spares: object, org_id: UUID, resource: UUID, name: str, connection_limit: int) -> None:
    server.databases[name] = ActualDatabase(name, Owner(org_id, resource, group=False), True, connection_limit, True, True, 0)


async def _allow(server: Imagined, name: str, connection_limit: int) -> None:
    server.databases[name] = replace(server.databases[name], allows_connections=True, connection_limit=connection_limit)


async def _seal(_server: Imagined) -> None:
    """Nobody could come in."""


def _imagine() -> None:
    """Puts what is imagined in the place of Postgres."""
    main.Server, main.Spares = _server, NoSpares  # type: ignore[assignment,misc]
    catalog.read, databases.create, databases.allow, databases.seal = _read, _create, _allow, _seal  # type: ignore[assignment]


def _settings(plane: str, told: dict[str, Any]) -> Settings:
    return Settings(
        data_plane_id=plane, data_plane_url=f"imagined:{plane}", data_plane_host="127.0.0.1", data_plane_port=1,
        agent_state_dir=Path(told["folder"]) / plane,
        kafka_bootstrap=told["bootstrap"], kafka_username=f"agent-{plane}", kafka_password=told["passwords"][plane],
    )  # fmt: skip


async def _lead() -> None:
    reader = asyncio.StreamReader(limit=10_000_000)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    told: dict[str, Any] = json.loads(await reader.readline())
    agents: list[asyncio.Task[None]] = []
    while word := (await reader.readline()).strip():
        if word == b"come":
            agents = [asyncio.create_task(main.Agent(_settings(plane, told)).run()) for plane in told["passwords"]]
        else:
            for agent in agents:
                agent.cancel()
            await asyncio.gather(*agents, return_exceptions=True)
        print("done", flush=True)


if __name__ == "__main__":
    set_up_logs("fleet", "ERROR")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    _imagine()
    asyncio.run(_lead())
