"""The load: people of many organizations who are always in the middle of something, through REST as a script would do it."""

import asyncio
import contextlib
import itertools
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.faults.client import Client, Refused, Who
from tests.faults.ledger import Ledger, OwedDatabase
from tests.mesh import PASSWORD

KINDS = ("sign up", "invite", "suspend or resume", "database", "verify or reset")
THINKS = 40.0
"""Seconds that people take over a mail: flows in flight cost nothing meanwhile."""
PATIENT, LONGER = 0.7, 4.0
"""The share of people with a mail who answer it when they would have without a fault, also when that is some cases later; and how many
times as long they may take. All of them at once are more than two cores bear.
"""
PAUSES = 15.0
"""Seconds, at most, until people ask for the next change."""
VERIFY, RESET = "Verify your address", "Set a new password"


@dataclass
class Flight:
    """One flow that was asked for and has not ended."""

    kind: str
    hurry: asyncio.Event
    """Set when this person is not to take their time any more."""
    patient: bool = False
    """A person is waited for who does not hurry after a fault either."""
    flow_id: str | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    waits: bool = False
    """It waits for a person now."""
    ended: float = 0.0


@dataclass(frozen=True)
class Size:
    """How many lanes there are of each kind; each lane is mostly in the middle of a flow. Two cores bear about so much."""

    sign_ups: int = 24
    organizations: int = 60
    suspending: int = 24
    inviting: int = 150
    databases: int = 36
    resets: int = 40
    setting_up: int = 12
    """People who are set up side by side before the load begins."""
    beginning: float = 30.0
    """Seconds in which all lanes begin: their first flows all at once are no steady rate."""


@dataclass
class Home:
    """An organization with its owner."""

    org_id: str
    owner: Who
    name: str


@dataclass
class Load:
    """The people, and what they do while it :meth:`runs`. One seed makes the same decisions."""

    client: Client
    ledger: Ledger
    seed: int
    size: Size = field(default_factory=Size)
    homes: list[Home] = field(default_factory=list)
    quiet: Home = field(init=False)
    """An organization in which nothing happens by itself."""
    mates: list[Who] = field(default_factory=list)
    forgetful: list[str] = field(default_factory=list)
    flights: dict[int, Flight] = field(default_factory=dict)
    stuck: list[str] = field(default_factory=list)
    _lanes: list[asyncio.Task[None]] = field(default_factory=list)
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while flows may be begun, and while patient people may go on with theirs."""
    _rest: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while nobody pauses, and after the last time."""
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when all flows are to end."""
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)
    patience: float = 60.0
    """Seconds that the last flows may take."""
    _asked: dict[str, float] = field(default_factory=dict)
    """Address → when its last reset was acknowledged."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _run: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    # The people

    async def settle(self) -> None:
        """Makes the organizations, the teammates and those who forget their passwords."""
        slots = asyncio.Semaphore(self.size.setting_up)

        async def one(make: Callable[[], Awaitable[Any]]) -> Any:
            async with slots:
                return await make()

        mates = -(-self.size.inviting // max(1, self.size.organizations - self.size.suspending)) * 2 + 4
        made = await asyncio.gather(
            *(one(self.make_home) for _ in range(self.size.organizations + 1)),
            *(one(self._make_mate) for _ in range(mates)),
            *(one(self._make_person) for _ in range(self.size.resets)),
        )
        self.quiet, *self.homes = [m for m in made if isinstance(m, Home)]
        self.mates = [m for m in made if isinstance(m, Who)]
        self.forgetful = [m for m in made if isinstance(m, str)]

    async def make_home(self) -> Home:
        """Somebody signs up and has all that belongs to it."""
        name = f"Org {self._run} {next(self._numbers)}"
        email, flow_id = await self._sign_up(name)
        await self.client.finished(flow_id)
        owner = await self._signed_in(email)
        orgs = await self.client.send("GET", "org", "/orgs", who=owner)
        org_id = orgs["items"][0]["id"]
        self.ledger.members[org_id, owner.user_id] = "owner"
        databases = await self.client.send("GET", "provisioning", f"/orgs/{org_id}/databases", who=owner)
        first = databases["items"][0]
        self.ledger.databases[first["id"]] = OwedDatabase(org_id, first["name"], first["limits"]["connections"])
        return Home(org_id, owner, name)

    async def _make_mate(self) -> Who:
        return await self._signed_in((await self._sign_up(None))[0])

    async def _make_person(self) -> str:
        return (await self._sign_up(None))[0]

    async def _signed_in(self, email: str) -> Who:
        """With a verified address."""
        who = Who(email)
        await self._verify(email, who)
        await self.client.sign_in(who)
        who.user_id = (await self.client.send("GET", "user", "/me", who=who))["id"]
        return who

    async def _sign_up(self, organization: str | None) -> tuple[str, str]:
        email = f"p{next(self._numbers)}.{self._run}@example.com"
        body = {"email": email, "password": PASSWORD, "name": "Lou Load", "organization": organization}
        flow_id = (await self.client.send("POST", "user", "/users", body))["flow_id"]
        self.ledger.sign_ups[email] = organization
        self.ledger.flows[flow_id] = "sign up"
        return email, flow_id

    async def _verify(self, email: str, who: Who | None = None) -> None:
        await self.client.send("POST", "user", "/users/verify", {"token": await self.client.token(email, VERIFY)}, who)
        self.ledger.verified.add(email)

    # Running

    @contextlib.asynccontextmanager
    async def runs(self, *, last: bool = True) -> AsyncIterator[None]:
        """Every lane goes from flow to flow. Afterwards only those are in flight that wait for somebody patient, who goes on when it runs
        again; after the last time none is. What should have ended and did not, and what broke, is named in ``stuck``.
        """
        if self._over.is_set():
            raise RuntimeError("this load has ended: it runs no more")
        self.stuck.clear()
        self._hurry = asyncio.Event()
        self._rest.clear()
        self._open.set()
        self._lanes = self._lanes or [asyncio.create_task(self._lane(step, n)) for n, step in enumerate(self._steps())]
        try:
            yield
        finally:
            self._rest.set()
            self._hurry.set()
            (self._over.set if last else self._open.clear)()
            await self._come_to_rest()

    async def _come_to_rest(self) -> None:
        try:
            async with asyncio.timeout(self.patience):
                while self._under_way() or (self._over.is_set() and not all(lane.done() for lane in self._lanes)):  # noqa: ASYNC110 - of many
                    await asyncio.sleep(0.05)
        except TimeoutError:
            self.stuck += [f"{f.kind} {f.flow_id}" for f in self._under_way()] or ["a lane that has not ended"]
        self.stuck += [f"a lane that broke: {lane.exception()!r}" for lane in self._lanes if lane.done() and lane.exception()]

    def _under_way(self) -> list[Flight]:
        return [f for f in self.flights.values() if self._over.is_set() or not (f.patient and f.waits)]

    async def end(self) -> None:
        """Everybody drops what they are at."""
        for lane in self._lanes:
            lane.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)

    def _steps(self) -> Iterator[Callable[[random.Random], Awaitable[None]]]:
        suspending, steady = self.homes[: self.size.suspending], self.homes[self.size.suspending :]
        for _ in range(self.size.sign_ups):
            yield self._signs_up
        for home in suspending:
            yield lambda rng, home=home: self._suspends(rng, home)
        for n in range(self.size.inviting):
            home, mate = steady[n % len(steady)], self.mates[(n // len(steady)) % len(self.mates)]
            yield lambda rng, home=home, mate=mate: self._invites(rng, home, mate)
        for n in range(self.size.databases):
            home = steady[n % len(steady)]
            yield lambda rng, home=home: self._changes_databases(rng, home)
        for email in self.forgetful:
            yield lambda rng, email=email: self._forgets(rng, email)

    async def _lane(self, step: Callable[[random.Random], Awaitable[None]], n: int) -> None:
        rng = random.Random(f"{self.seed}/{n}")  # noqa: S311 - decisions, not secrets
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), rng.uniform(0, self.size.beginning))
        while await self._open.wait() and not self._over.is_set():
            with contextlib.suppress(Refused):
                await step(rng)

    def hurry(self) -> None:
        """Nobody who is in the middle of something takes their time any more. Who begins something later does."""
        self._hurry.set()
        self._hurry = asyncio.Event()

    async def _pauses(self, rng: random.Random, most: float) -> None:
        """Nothing is asked for in between."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._rest.wait(), rng.uniform(0, most))

    async def _thinks(self, rng: random.Random, flight: Flight, seconds: float, least: float | None = None) -> None:
        """The person takes about so long, unless they are to hurry; who is patient does not, and goes on when the others do."""
        longer = LONGER if flight.patient else 1.0
        flight.waits = True
        if flight.flow_id:
            self.ledger.waiting.add(flight.flow_id)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(flight.hurry.wait(), rng.uniform(seconds / 2 if least is None else least, seconds * 1.5 * longer))
        if flight.patient:
            await self._open.wait()
        if flight.flow_id:
            self.ledger.waiting.discard(flight.flow_id)
        flight.waits = False

    def in_flight(self) -> Counter[str]:
        return Counter(f.kind for f in list(self.flights.values()))

    async def until_in_flight(self, least: int, seconds: float = 60) -> None:
        """Waits for so many flows in flight, of every kind, or for the time to be over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and (self.in_flight().total() < least or set(self.in_flight()) != set(KINDS)):  # noqa: ASYNC110 - a number, no event
            await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def _flight(self, kind: str, *, patient: bool = False) -> AsyncIterator[Flight]:
        number, flight = next(self._numbers), Flight(kind, self._over if patient else self._hurry, patient)
        self.flights[number] = flight
        try:
            yield flight
        finally:
            self.flights.pop(number, None)
            flight.ended = time.monotonic()
            flight.done.set()

    async def _start(self, flight: Flight, method: str, service: str, path: str, json: Any = None, who: Who | None = None) -> dict[str, Any]:
        answer = await self.client.send(method, service, path, json, who)
        flight.flow_id = answer["flow_id"]
        self.ledger.flows[answer["flow_id"]] = flight.kind
        return answer

    # What people do

    async def rename(self, home: Home, name: str) -> None:
        name = f"{name} {self._run} {next(self._numbers)}"
        await self.client.send("PATCH", "org", f"/orgs/{home.org_id}", {"name": name}, home.owner)
        self.ledger.sign_ups[home.owner.email] = home.name = name

    async def _signs_up(self, rng: random.Random) -> None:
        async with self._flight("sign up"):
            email, flow_id = await self._sign_up(f"Org {self._run} {next(self._numbers)}")
            await self.client.finished(flow_id)
        async with self._flight("verify or reset", patient=rng.random() < PATIENT) as flight:
            await self.client.mails(email, VERIFY)
            await self._thinks(rng, flight, THINKS)
            await self._verify(email)

    async def _suspends(self, rng: random.Random, home: Home) -> None:
        async with self._flight("suspend or resume") as flight:
            await self._start(flight, "POST", "org", f"/orgs/{home.org_id}/suspend", {"reason": "load"}, home.owner)
            self.ledger.suspensions[home.org_id] += 1
            if waits := rng.random() < 0.7:
                await self.client.finished(flight.flow_id or "")
        await self._pauses(rng, PAUSES * waits)
        async with self._flight("suspend or resume") as flight:
            await self._start(flight, "POST", "org", f"/orgs/{home.org_id}/resume", None, home.owner)
            self.ledger.resumptions[home.org_id] += 1
            await self.client.finished(flight.flow_id or "")

    async def _invites(self, rng: random.Random, home: Home, mate: Who) -> None:
        if self.ledger.members.get((home.org_id, mate.user_id)):
            await self._removes(home, mate)
            return
        async with self._flight("invite", patient=rng.random() < PATIENT) as flight:
            path = f"/orgs/{home.org_id}/invitations"
            made = await self._start(flight, "POST", "org", path, {"email": mate.email, "role": rng.choice(("member", "admin"))}, home.owner)
            self.ledger.invitations[made["id"]] = mate.email
            await self.client.mails(mate.email, made["id"])
            await self._thinks(rng, flight, THINKS)
            if flight.patient and self._over.is_set():
                await self.client.send("DELETE", "org", f"{path}/{made['id']}", None, home.owner)
                return
            await self.client.send("POST", "org", f"/invitations/{made['id']}/accept", None, mate)
            self.ledger.members[home.org_id, mate.user_id] = made["role"]
            await self.client.finished(flight.flow_id or "")
        await self._pauses(rng, THINKS)

    async def _removes(self, home: Home, mate: Who) -> None:
        async with self._flight("invite") as flight:
            await self._start(flight, "DELETE", "org", f"/orgs/{home.org_id}/members/{mate.user_id}", None, home.owner)
            self.ledger.members[home.org_id, mate.user_id] = None
            await self.client.finished(flight.flow_id or "")

    async def _changes_databases(self, rng: random.Random, home: Home) -> None:
        path = f"/orgs/{home.org_id}/databases"
        name = f"n{next(self._numbers)}"
        async with self._flight("database") as flight:
            made = await self._start(flight, "POST", "provisioning", path, {"name": name}, home.owner)
            owed = self.ledger.databases[made["id"]] = OwedDatabase(home.org_id, name, made["limits"]["connections"])
            await self.client.finished(flight.flow_id or "")
        one = f"{path}/{made['id']}"
        for _ in range(rng.randint(4, 8)):
            await self._open.wait()
            if self._over.is_set():
                break
            await self._changes(rng, home, one, owed)
            await self._pauses(rng, PAUSES)
        async with self._flight("database") as flight:
            await self._start(flight, "DELETE", "provisioning", one, None, home.owner)
            owed.present = False
            await self.client.finished(flight.flow_id or "")

    async def _changes(self, rng: random.Random, home: Home, one: str, owed: OwedDatabase) -> None:
        async with self._flight("database") as flight:
            limit = rng.randint(1, 20)
            await self._start(flight, "PATCH", "provisioning", one, {"connection_limit": limit}, home.owner)
            owed.limit = limit
            if rng.random() < 0.7:
                await self.client.finished(flight.flow_id or "")
                return
        async with self._flight("database") as flight:
            await self._start(flight, "DELETE", "provisioning", one, None, home.owner)
            owed.present = False
        async with self._flight("database") as flight:
            await self._start(flight, "POST", "provisioning", f"{one}/undelete", None, home.owner)
            owed.present = True
            await self.client.finished(flight.flow_id or "")

    async def _forgets(self, rng: random.Random, email: str) -> None:
        """Over and over, with a minute in between, also from case to case: for so long a second mail would not come."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._rest.wait(), self._asked.get(email, 0.0) + 61 - time.monotonic())
            return
        async with self._flight("verify or reset", patient=rng.random() < PATIENT) as flight:
            await self._start(flight, "POST", "user", "/password-resets", {"email": email})
            self._asked[email] = time.monotonic()
            self.ledger.reset_mails[email] += 1
            token = await self.client.token(email, RESET, self.ledger.reset_mails[email])
            await self._thinks(rng, flight, 65, least=61)
            password = f"{PASSWORD} {next(self._numbers)}"
            await self.client.send("POST", "user", "/password-resets/confirm", {"token": token, "password": password})
            self.ledger.passwords[email] = password
            self.ledger.verified.add(email)
            await self.client.finished(flight.flow_id or "")
