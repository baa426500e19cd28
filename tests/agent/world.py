"""An agent's reconciler on a real server, with a control plane's records fed in by hand."""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from schemas.feed import Observed
from services.agent.databases import Spares
from services.agent.desired import Tenant
from services.agent.disk import Disk
from services.agent.inbox import Heard, Inbox, Record
from services.agent.reconciler import Reconciler
from services.agent.server import Server as Door
from tests.agent.server import Server

ASSIGNMENTS = "dataplane.here.assignments"


def verifier(password: str, iterations: int = 4096) -> str:
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    stored = hashlib.sha256(client_key).digest()
    code = [base64.b64encode(part).decode() for part in (salt, stored, server_key)]
    return f"SCRAM-SHA-256${iterations}:{code[0]}${code[1]}:{code[2]}"


class World:
    """``said`` feeds records as Kafka would; ``observed`` is what would have been reported."""

    def __init__(self, server: Server, door: Door, folder: Path, spares: int = 0) -> None:
        self.server = server
        self.door = door
        self.disk = Disk(folder / "state")
        self.tenants: dict[UUID, Tenant] = {tenant.org_id: tenant for tenant in self.disk.load()}
        self.inbox = Inbox(ASSIGNMENTS, self.tenants)
        self.spares = Spares(door, spares)
        self.reconciler = Reconciler(door, self.spares, self.disk, self.tenants, 4)
        self.observed: dict[UUID, Observed] = {}
        self.told: list[Observed] = []
        self.reconciler.changed = self._changed
        self._tasks: list[asyncio.Task[None]] = []

    def _changed(self, _org_id: UUID, observed: list[Observed]) -> None:
        self.told += observed
        self.observed.update({one.resource: one for one in observed})

    def watch(self, every: float = 0.05) -> asyncio.Event:
        swept = asyncio.Event()
        self._tasks.append(asyncio.create_task(self.reconciler.watch(every, swept)))
        return swept

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.reconciler.close()

    def hear(self, *records: Record) -> Heard:
        heard = self.inbox.take(list(records))
        for org_id in heard.changed:
            self.reconciler.touch(org_id)
        for org_id, resources in heard.repeated.items():
            self.reconciler.repeat(org_id, resources)
        return heard


class Org:
    """A tenant as the control plane writes it."""

    def __init__(self) -> None:
        self.id = uuid4()
        self.topic = f"tenant.{self.id}.feed"
        self.generation = 0

    def record(self, topic: str, resource: UUID, kind: str, desired: dict[str, Any], generation: int | None = None, **more: Any) -> Record:
        self.generation += 1
        value = {"org_id": str(self.id), "resource": str(resource), "kind": kind, "generation": generation or self.generation}
        return Record(topic, 0, f"{self.id}/{resource}".encode(), json.dumps(value | {"desired": desired} | more, default=str).encode())

    def assignment(self, **more: Any) -> Record:
        return self.record(ASSIGNMENTS, self.id, "assignment", {"topic": self.topic}, **more)

    def organization(self, state: str = "active", **more: Any) -> Record:
        return self.record(self.topic, self.id, "organization", {"state": state}, **more)

    def gone(self, resource: UUID, topic: str | None = None) -> Record:
        return Record(topic or self.topic, 0, f"{self.id}/{resource}".encode(), None)


class Db:
    def __init__(self, org: Org, name: str | None = None) -> None:
        self.org, self.id, self.name = org, uuid4(), name or f"db_{secrets.token_hex(5)}"

    def record(self, state: str = "present", limit: int = 5, **more: Any) -> Record:
        desired = {"name": self.name, "state": state, "connection_limit": limit}
        return self.org.record(self.org.topic, self.id, "database", desired, **more)


class Member:
    def __init__(self, db: Db, role: str = "owner") -> None:
        self.db, self.id, self.role = db, uuid4(), role
        self.username = f"u_{secrets.token_hex(5)}"
        self.rotate()

    def rotate(self) -> None:
        self.password = secrets.token_hex(12)
        self.verifier: str | None = verifier(self.password)

    def record(self, **more: Any) -> Record:
        desired = {"database": self.db.id, "username": self.username, "verifier": self.verifier, "role": self.role}
        return self.db.org.record(ASSIGNMENTS, self.id, "login", desired, **more)

    async def connect(self, server: Server, database: str | None = None) -> asyncpg.Connection:
        return await server.connect(database or self.db.name, self.username, self.password)

    async def run(self, server: Server, sql: str) -> list[asyncpg.Record]:
        connection = await self.connect(server)
        try:
            return await connection.fetch(sql)
        finally:
            await connection.close()
