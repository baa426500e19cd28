"""One request, one transaction: begun when the handler first needs it, committed before the answer leaves.

FastAPI runs the exit code of ``yield`` dependencies around the response; a commit there could fail after a 201 was sent. So the
transaction belongs to the route: the handler runs, its answer is remembered for its Idempotency-Key, the transaction commits,
and only then is the answer sent.
"""

import asyncio
import hashlib
import hmac
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import Request, Response
from fastapi.routing import APIRoute

from shared.changes import Context, new_flow_id
from shared.errors import Refused
from shared.failpoints import failpoint
from shared.http import problems
from shared.log import about
from shared.positions import READERS
from shared.settings import settings
from shared.trace import current_traceparent, trace_id, well_formed
from shared.tx import Database, Position, TablesChanged, Tx

WRITES = frozenset({"POST", "PATCH", "PUT", "DELETE"})
_PATIENCE = 5.0
"""Seconds that a request waits for a connection to the database, before it is told to come again."""
_POSITION_WAIT = 5.0
_MOST_POSITIONS = 50
_MOST_WAITING = {True: 100, False: 10}
"""Requests that wait for changes at once: of callers who are known, and of those who may become known by it."""


class KeyInUse(Refused):
    """A request with this Idempotency-Key is being carried out. Wait for its answer, then repeat it with the same key."""

    status = 409
    retry_after = 1


class KeyReused(Refused):
    """This Idempotency-Key was used for another request. Take a new key for every new request."""

    status = 422


class BadKey(Refused):
    """The Idempotency-Key is empty or too long. Take one of 1 to 255 characters, such as a random UUID."""

    status = 422


class BadPosition(Refused):
    """Mesh-Position holds what is no position. Send the tokens as they came in an answer, separated by commas."""

    status = 422


class NotSeenYet(Refused):
    """This service has not yet seen your earlier change. Try again."""

    status = 503
    retry_after = 1


class TooManyWait(Refused):
    """Too many requests wait for changes already. Try again."""

    status = 503
    retry_after = 1


class Replayed(Exception):
    """The answer to this request is known already."""

    def __init__(self, response: Response) -> None:
        self.response = response
        super().__init__()


class Unit:
    """The transaction of one request."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.database: Database = request.app.state.database
        self.writes = request.method in WRITES
        self.flow_id = new_flow_id() if self.writes else None
        self.traceparent = current_traceparent() or well_formed(request.headers.get("traceparent"))
        self.known = False
        """Who calls is known: a door that wants an identity has found one."""
        self.seen = _furthest(_positions(request))
        """What the caller has seen, here and elsewhere."""
        self._tx: Tx | None = None
        self._stack = AsyncExitStack()
        self._claimed: tuple[str, str, bytes] | None = None

    @classmethod
    def of(cls, request: Request) -> "Unit":
        unit: Unit = request.state.unit
        return unit

    def as_logged(self) -> dict[str, str]:
        """What every line about this request says."""
        known = {"flow_id": self.flow_id, "trace_id": trace_id(self.traceparent)}
        return {name: str(value) for name, value in known.items() if value}

    async def tx(self) -> Tx:
        """The request's transaction, begun now if it was not."""
        if self._tx is None:
            context = Context(flow_id=self.flow_id, traceparent=self.traceparent)
            self._tx = await self._stack.enter_async_context(self.database.transaction(context=context, readonly=not self.writes, within=_PATIENCE))
        return self._tx

    async def claim(self, caller: str) -> None:
        """Answers from memory when this caller's Idempotency-Key was carried out; else this request owns the key."""
        key = self.request.headers.get("Idempotency-Key")
        if not self.writes or key is None or self._claimed:
            return
        if not 1 <= len(key) <= 255:
            raise BadKey
        tx = await self.tx()
        name = hashlib.sha256(key.encode()).hexdigest()
        if not await tx.value("SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))", f"{caller} {name}"):
            raise KeyInUse
        digest = await self._digest(key)
        rows = await tx.records(
            "SELECT request_hash, status, headers, body FROM idempotency WHERE caller = $1 AND key = $2 AND at > now() - interval '24 hours'", caller, name
        )
        if rows:
            if rows[0]["request_hash"] != digest:
                raise KeyReused
            raise Replayed(Response(_opened(key, rows[0]["body"]), rows[0]["status"], rows[0]["headers"] | {"Idempotency-Replayed": "true"}))
        self._claimed = (caller, key, digest)

    async def _digest(self, key: str) -> bytes:
        """Tells requests under one key apart. A password may be in it: who does not know the key has nothing to try one against."""
        said = f"{self.request.method} {self.request.url.path} {self.request.url.query} ".encode() + await self.request.body()
        return hmac.digest(key.encode(), said, "sha256")

    async def finish(self, response: Response) -> None:
        """Completes the answer, remembers it, and commits."""
        if response.status_code >= 400:
            await self.abort()
            return
        if self._tx is not None and self.writes:
            await self._complete(self._tx, response)
        await self._stack.aclose()

    async def _complete(self, tx: Tx, response: Response) -> None:
        positions = await tx.positions()
        if positions:
            response.headers["Mesh-Position"] = ", ".join(str(p) for p in _furthest(self.seen + positions))
        if response.status_code == 202 and tx.context.flow_id:
            response.headers.setdefault("Location", f"{settings().console_url}/flows/{tx.context.flow_id}")
        if self._claimed:
            caller, key, digest = self._claimed
            headers = {k: v for k, v in response.headers.items() if k in ("content-type", "location", "mesh-position", "etag")}
            await tx.run(
                "INSERT INTO idempotency (caller, key, request_hash, status, headers, body) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (caller, key) "
                "DO UPDATE SET request_hash = excluded.request_hash, status = excluded.status, headers = excluded.headers, body = excluded.body, at = now()",
                caller, hashlib.sha256(key.encode()).hexdigest(), digest, response.status_code, headers, _sealed(key, bytes(response.body)),
            )  # fmt: skip

    async def catch_up(self, *, known: bool) -> bool:
        """Waits until this service has applied what the caller has seen elsewhere. False when it had before: then nothing has changed.

        Comes before anything is written. Raises :class:`NotSeenYet`, :class:`TooManyWait`.
        """
        behind = await self._behind(self._followed()) if self.seen else []
        if not behind:
            return False
        with _place(known):
            deadline, pause = time.monotonic() + _POSITION_WAIT, 0.002
            while behind:
                if time.monotonic() > deadline:
                    raise NotSeenYet
                await self.release()
                await asyncio.sleep(pause)
                pause = min(pause * 2, 0.05)
                behind = await self._behind(behind)
        return True

    def _followed(self) -> list[tuple[str, Position]]:
        """What of it this service reads, each with who reads it."""
        applier, read = self.request.app.state.applier, settings().mesh_services.split(",")
        return [(r, p) for p in self.seen if p.source in read for r in READERS if applier.follows(r, p.source, p.stream)]

    async def _behind(self, pairs: list[tuple[str, Position]]) -> list[tuple[str, Position]]:
        """Those that have not come as far."""
        if not pairs:
            return []
        tx = await self.tx()
        rows = await tx.records(
            "SELECT reader, source, stream, epoch, seq FROM positions JOIN unnest($1::text[], $2::text[], $3::text[]) AS u (r, s, n) "
            "ON reader = u.r AND source = u.s AND stream = u.n",
            [r for r, _ in pairs], [p.source for _, p in pairs], [p.stream for _, p in pairs],
        )  # fmt: skip
        at = {(r["reader"], r["source"], r["stream"]): (r["epoch"], r["seq"]) for r in rows}
        return [(r, p) for r, p in pairs if at.get((r, p.source, p.stream), (0, 0)) < (p.epoch, p.seq)]

    async def release(self) -> None:
        """Ends the transaction before the handler ends, when nothing was written yet: who waits or computes holds no connection. The next claims its key
        anew.
        """
        await self._stack.aclose()
        self._tx = self._claimed = None

    async def end_with(self, error: BaseException) -> None:
        """Ends a request that failed: takes everything back, unless the refusal itself is to be remembered."""
        if isinstance(error, Refused) and error.keeps_effects:
            await self._stack.aclose()
        else:
            await self.abort()

    async def abort(self) -> None:
        """Takes everything back."""
        error = _RolledBack()
        await self._stack.__aexit__(_RolledBack, error, None)


def _positions(request: Request) -> list[Position]:
    """What the caller has seen. Raises :class:`BadPosition`."""
    try:
        return [Position.parse(t) for t in request.headers.get("Mesh-Position", "").split(",") if t.strip()]
    except ValueError as error:
        raise BadPosition from error


def _furthest(positions: list[Position]) -> list[Position]:
    """One of each stream, those named last at the end. So many are kept: what was seen long ago has long been applied."""
    by_stream: dict[tuple[str, str], Position] = {}
    for p in positions:
        before = by_stream.pop((p.source, p.stream), p)
        by_stream[p.source, p.stream] = max(before, p, key=lambda p: (p.epoch, p.seq))
    return list(by_stream.values())[-_MOST_POSITIONS:]


class _RolledBack(Exception):
    """Ends a transaction without its effects."""


def _cipher(key: str) -> AESGCM:
    return AESGCM(hashlib.sha256(b"idempotent answer " + key.encode()).digest())


def _sealed(key: str, body: bytes) -> bytes:
    """An answer may hold a secret that is shown once: only who knows the Idempotency-Key can open the stored copy.

    So that copy is as hard to open as the key is to guess.
    """
    nonce = os.urandom(12)
    return nonce + _cipher(key).encrypt(nonce, body, None)


def _opened(key: str, sealed: bytes) -> bytes:
    return _cipher(key).decrypt(sealed[:12], sealed[12:], None)


def etag(value: Any) -> str:
    """The strong entity tag of a JSON value, whatever the order of its fields."""
    return '"' + hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:24] + '"'


Handler = Callable[[Request], Awaitable[Response]]


class UnitRoute(APIRoute):
    """A route whose handler runs inside the request's transaction."""

    def get_route_handler(self) -> Handler:  # type: ignore[override]
        handler = super().get_route_handler()

        async def in_transaction(request: Request) -> Response:
            try:
                return await _attempt(request, handler)
            except TablesChanged:
                return await _attempt(request, handler)

        return in_transaction


async def _attempt(request: Request, handler: Handler) -> Response:
    """The handler in a transaction of its own. What a refusal or trouble of the database means to the caller is said by who catches it."""
    unit = request.state.unit = Unit(request)
    about.set(about.get() | unit.as_logged())
    try:
        response = await handler(request)
        _describe(request, response)
        await unit.finish(response)
    except Replayed as replayed:
        await unit.abort()
        return replayed.response
    except BaseException as error:
        await unit.end_with(error)
        if not problems.is_surprise(error):
            raise
        return problems.failed(error)
    if unit.writes:
        failpoint("answer")
        response.headers.setdefault("Cache-Control", "no-store")
        return response
    tag = response.headers.get("ETag")
    return Response(status_code=304, headers={"ETag": tag}) if tag and request.headers.get("If-None-Match") == tag else response


def _describe(request: Request, response: Response) -> None:
    """Adds the ETag of a single resource: one that is read, or is answered as it is after a change. Nothing is of no type."""
    if response.status_code == 204 and "Content-Type" in response.headers:
        del response.headers["Content-Type"]
    body = getattr(response, "body", b"")
    if request.method in ("GET", "PATCH") and response.status_code == 200 and body.startswith(b"{") and not body.startswith(b'{"items"'):
        response.headers.setdefault("ETag", etag(orjson.loads(body)))


_waiting: Counter[bool] = Counter()


@contextmanager
def _place(known: bool) -> Iterator[None]:
    """A place among those who wait. Who is not known takes none from those who are."""
    if _waiting[known] >= _MOST_WAITING[known]:
        raise TooManyWait
    _waiting[known] += 1
    try:
        yield
    finally:
        _waiting[known] -= 1
