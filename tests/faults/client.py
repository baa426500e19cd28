"""How the load talks to the mesh: requests repeated under one key until they are acknowledged, mails and flows waited for."""

import asyncio
import contextlib
import random
import re
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import asyncpg
import orjson

from deploy.status import Document
from tests.faults.ledger import Ledger
from tests.mesh import PASSWORD

Mail = dict[str, Any]
_TOKEN = re.compile(r"\?token=([\w.-]+)")
_LOOK_EVERY = 0.25


class Refused(Exception):
    """The mesh will not do what was asked."""


@dataclass
class Who:
    """A signed-in person."""

    email: str
    user_id: str = ""
    token: str = ""
    seen: str = ""
    """The positions of their last writes."""


@dataclass(frozen=True)
class Answer:
    """What a service said."""

    status: int
    text: str
    position: str | None


@dataclass
class Client:
    """All of the load's connections to one mesh."""

    document: Document
    ledger: Ledger
    http: aiohttp.ClientSession
    answers: Counter[int] = field(default_factory=Counter)
    """How often each status was answered; 0 is no answer."""
    failures: list[str] = field(default_factory=list)
    """In words: each request that got no answer, or one that is the mesh's fault."""
    doors: dict[str, list[str]] = field(init=False)
    """Service → its replicas that requests are shared among, as a balancer would."""
    _under_way: Counter[str] = field(default_factory=Counter)
    _mails: dict[str, list[Mail]] = field(default_factory=lambda: defaultdict(list))
    _known: set[str] = field(default_factory=set)
    _wanted: dict[str, asyncio.Future[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.doors = {name: [service["url"]] for name, service in self.document["services"].items()}

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, document: Document, ledger: Ledger) -> AsyncIterator["Client"]:
        connector, patience = aiohttp.TCPConnector(limit=64), aiohttp.ClientTimeout(10)
        async with aiohttp.ClientSession(connector=connector, timeout=patience) as http:
            client = cls(document, ledger, http)
            watchers = [asyncio.create_task(_for_ever(look)) for look in (client._look_at_mails, client._look_at_flows)]
            try:
                yield client
            finally:
                for watcher in watchers:
                    watcher.cancel()
                await asyncio.gather(*watchers, return_exceptions=True)

    # Requests

    async def send(self, method: str, service: str, path: str, json: Any = None, who: Who | None = None) -> dict[str, Any]:
        """Carries out one request, repeating it with its Idempotency-Key until it is acknowledged.

        Raises :class:`Refused` for an answer that asks for nothing to be repeated; the ledger keeps it as a surprise.
        """
        key = uuid.uuid4().hex
        while True:
            answer = await self._once(method, service, path, json, who, key)
            if answer is None or answer.status in (429, 502, 503) or "key-in-use" in answer.text:
                await asyncio.sleep(random.uniform(0.1, 0.4))  # noqa: S311 - jitter
            elif answer.status == 401 and who:
                await self.sign_in(who)
            elif answer.status < 300:
                if who and answer.position:
                    who.seen = answer.position
                return dict(orjson.loads(answer.text)) if answer.text else {}
            else:
                self.ledger.surprises.append(f"{method} {service}{path}: {answer.status} {answer.text[:200]}")
                if answer.status < 500:
                    raise Refused(answer.text)
                await asyncio.sleep(0.3)

    async def _once(self, method: str, service: str, path: str, json: Any, who: Who | None, key: str) -> Answer | None:
        headers = {"Idempotency-Key": key}
        if who:
            headers |= ({"Authorization": f"Bearer {who.token}"} if who.token else {}) | ({"Mesh-Position": who.seen} if who.seen else {})
        door = random.choice(self.doors[service])  # noqa: S311 - a balancer
        self._under_way[door] += 1
        try:
            async with self.http.request(method, door + path, json=json, headers=headers) as said:
                answer = Answer(said.status, await said.text(), said.headers.get("Mesh-Position"))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.answers[0] += 1
            self.failures.append(f"{method} {service}{path} at {door}: {error!r}")
            return None
        finally:
            self._under_way[door] -= 1
        self.answers[answer.status] += 1
        if answer.status >= 500:
            self.failures.append(f"{method} {service}{path} at {door}: {answer.status} {answer.text[:200]}")
        return answer

    async def share(self, doors: dict[str, list[str]]) -> None:
        """From now on requests go to these doors; returns when none is under way at any other."""
        left = {door for service in self.doors.values() for door in service} - {door for service in doors.values() for door in service}
        self.doors = doors
        while any(self._under_way[door] for door in left):  # noqa: ASYNC110 - a number, no event
            await asyncio.sleep(0.05)

    async def sign_in(self, who: Who) -> None:
        password = self.ledger.passwords.get(who.email, PASSWORD)
        who.token = (await self.send("POST", "user", "/sessions", {"email": who.email, "password": password}))["access_token"]

    # Waiting

    async def mails(self, to: str, about: str, count: int = 1) -> list[Mail]:
        """The mails to an address that speak of something, oldest first, once there are so many different ones."""
        while True:
            found = {m["message_id"]: m for m in self._mails[to] if about in m["subject"] or f"/{about}" in m["text"]}
            if len(found) >= count:
                return list(found.values())
            await asyncio.sleep(_LOOK_EVERY)

    async def token(self, to: str, about: str, count: int = 1) -> str:
        """The token in the newest of so many mails."""
        found = _TOKEN.search((await self.mails(to, about, count))[-1]["text"])
        assert found
        return found[1]

    async def finished(self, flow_id: str) -> str:
        """Waits until a flow has ended, or waits for its timer. Its state."""
        waiting = self._wanted.get(flow_id)
        if waiting is None:
            waiting = self._wanted[flow_id] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(waiting)

    async def _look_at_mails(self) -> None:
        while True:
            new = await self._new_mails(25)
            for mail in reversed(new):
                self._known.add(mail["id"])
                for to in mail["to"]:
                    self._mails[to].append(mail)
            await asyncio.sleep(_LOOK_EVERY)

    async def _new_mails(self, limit: int) -> list[Mail]:
        async with self.http.get(self.document["mail"]["url"], params={"limit": limit}) as said:
            newest = orjson.loads(await said.read())
        new = [m for m in newest if m["id"] not in self._known]
        return await self._new_mails(limit * 10) if len(new) == limit else new

    async def _look_at_flows(self) -> None:
        connection = await asyncpg.connect(self.document["postgres"]["url"], timeout=5, command_timeout=10)
        try:
            while True:
                rows = await connection.fetch(
                    "SELECT id::text, state FROM console.flows WHERE id = ANY($1::uuid[]) AND (finished_at IS NOT NULL OR state = 'waiting_timer')",
                    list(self._wanted),
                )
                for row in rows:
                    self._wanted.pop(row["id"]).set_result(row["state"])
                await asyncio.sleep(_LOOK_EVERY)
        finally:
            connection.terminate()


async def _for_ever(look: Callable[[], Any]) -> None:
    """What it looks at may be away for a while, and shows that in many ways."""
    while True:
        with contextlib.suppress(Exception):
            await look()
        await asyncio.sleep(_LOOK_EVERY)
