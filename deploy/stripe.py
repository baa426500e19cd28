"""Stripe for a local mesh: localstripe behind a front that adds what the real one promises and localstripe does not.

``Idempotency-Key`` is honored on every POST and survives a restart together with its effect; the bearer key is checked;
``GET /v1/customers/search`` finds customers by metadata. State is in a folder of its own, on disk before an answer leaves.
Variables: ``STRIPE_DIR``, ``STRIPE_HOST``, ``STRIPE_PORT``, ``STRIPE_API_KEY``.
"""

import asyncio
import hashlib
import hmac
import os
import pickle
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import BasicAuth, web
from localstripe.resources import Store, store
from localstripe.server import app as localstripe

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_SEARCH = re.compile(r"metadata\[['\"](?P<key>[^'\"]+)['\"]\]:\s*['\"](?P<value>[^'\"]*)['\"]")


@dataclass
class Answer:
    """What was answered to a key, and to which request."""

    request: str
    status: int
    body: bytes


@dataclass
class Books:
    """The objects and the answers, saved as one: either both know of a request, or neither."""

    file: Path
    answers: dict[str, Answer] = field(default_factory=dict)
    _saving: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changes: int = 0
    _saved: int = 0

    def load(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if self.file.exists():
            objects, self.answers = pickle.loads(self.file.read_bytes())  # noqa: S301 -- our own file, private to its owner
            dict.update(store, objects)

    async def save(self) -> None:
        """Wait until everything up to now is on disk; those who wait together share one write."""
        self._changes += 1
        mine = self._changes
        async with self._saving:
            if self._saved >= mine:
                return
            self._saved = self._changes
            await asyncio.to_thread(self._write, pickle.dumps((dict(store), self.answers), pickle.HIGHEST_PROTOCOL))

    def _write(self, content: bytes) -> None:
        draft = self.file.with_suffix(".draft")
        with open(draft, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.file)


@dataclass
class Front:
    """What a request meets before localstripe does."""

    books: Books
    key: str
    _in_flight: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def middleware(self) -> Any:
        @web.middleware
        async def front(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path in ("/readyz", "/healthz"):
                return web.json_response({"objects": len(store)})
            if not self._knows(request.headers.get("Authorization", "")):
                return _error(401, "invalid_request_error", "The API key is not the one of this mesh.")
            if request.path.startswith("/_config"):
                return _error(404, "invalid_request_error", f"Unrecognized request URL ({request.path}).")
            if request.path == "/v1/customers/search" and request.method == "GET":
                return _search(request.query.get("query", ""))
            if request.method in ("GET", "HEAD"):
                return await handler(request)
            return await self._change(request, handler)

        return front

    def _knows(self, authorization: str) -> bool:
        scheme, _, value = authorization.partition(" ")
        if scheme == "Basic":
            try:
                value = BasicAuth.decode(authorization).login
            except ValueError:
                return False
        return hmac.compare_digest(value.encode(), self.key.encode())

    async def _change(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        if not key:
            response = await handler(request)
            await self.books.save()
            return response
        content = hashlib.sha256(f"{request.method} {request.path_qs}\n".encode() + await request.read()).hexdigest()
        async with self._in_flight[key]:
            known = self.books.answers.get(key)
            if known is None:
                return await self._first(request, handler, key, content)
        if known.request != content:
            return _error(400, "idempotency_error", f"The key {key} was used for another request.")
        headers = {"Idempotent-Replayed": "true", "Content-Type": "application/json"}
        return web.Response(status=known.status, body=known.body, headers=headers)

    async def _first(self, request: web.Request, handler: Handler, key: str, content: str) -> web.StreamResponse:
        response = await handler(request)
        if isinstance(response, web.Response) and response.status < 500:
            body = response.body if isinstance(response.body, bytes) else b""
            self.books.answers[key] = Answer(content, response.status, body)
        await self.books.save()
        return response


def _search(query: str) -> web.Response:
    """One condition on metadata is understood: ``metadata['name']:'value'``."""
    wanted = _SEARCH.fullmatch(query.strip())
    if not wanted:
        return _error(400, "invalid_request_error", "Search understands metadata['name']:'value' only.")
    customers = [one for name, one in store.items() if name.startswith("customer:")]
    found = [one._export() for one in customers if (one.metadata or {}).get(wanted["key"]) == wanted["value"]]  # noqa: SLF001 - its one way to JSON
    return web.json_response({"object": "search_result", "url": "/v1/customers/search", "data": found, "has_more": False, "next_page": None})


def _error(status: int, kind: str, message: str) -> web.Response:
    return web.json_response({"error": {"type": kind, "message": message}}, status=status)


def _not_by_itself(_: Store) -> None:
    """Instead of localstripe's own saving, to one file for all of the machine."""


def application(folder: Path, key: str) -> web.Application:
    """Localstripe with the front before it; its own saving to one fixed file is turned off."""
    Store.dump_to_disk = _not_by_itself
    books = Books(folder / "books.pickle")
    books.load()
    localstripe.middlewares.insert(0, Front(books, key).middleware())
    app: web.Application = localstripe
    return app


def main() -> None:
    env = os.environ
    app = application(Path(env["STRIPE_DIR"]), env["STRIPE_API_KEY"])
    web.run_app(app, host=env["STRIPE_HOST"], port=int(env["STRIPE_PORT"]), access_log=None, print=lambda *_: None)


if __name__ == "__main__":
    main()
