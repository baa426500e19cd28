"""How tests use the mesh: through REST as people do, and through topics and databases where those are the doors."""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import asyncpg
import httpx

from deploy.stack import Mesh
from tests.command import Done, command
from tests.traces import Traces

T = TypeVar("T")
PASSWORD = "a long and quiet river"
CROWD = 8
"""So many sign up side by side."""


def eventually(look: Callable[[], T], timeout: float = 30.0, what: str = "") -> T:
    """Looks until what is seen is true, and answers it. A look that raises AssertionError or KeyError looks again."""
    deadline = time.monotonic() + timeout
    pause = 0.005
    last: object = None
    while True:
        try:
            last = look()
            if last:
                return last  # type: ignore[return-value]
        except (AssertionError, KeyError, IndexError) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or look}; last seen: {last!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


HTTP = httpx.Client(timeout=30)
"""One for all: each that is made reads every certificate authority of this machine, which takes longer than most requests."""


class Door:
    """REST as one caller: every answer's Mesh-Position goes with the next request, to whichever service."""

    def __init__(self, urls: dict[str, str], token: str | None = None) -> None:
        self.urls = urls
        self.headers: dict[str, str] = {"Authorization": f"Bearer {token}"} if token else {}

    def call(self, method: str, service: str, path: str, json: Any = None, headers: dict[str, str] | None = None) -> httpx.Response:
        answer = HTTP.request(method, self.urls[service] + path, json=json, headers=self.headers | (headers or {}))
        if "Mesh-Position" in answer.headers:
            self.headers["Mesh-Position"] = answer.headers["Mesh-Position"]
        return answer

    def get(self, service: str, path: str, **kwargs: Any) -> httpx.Response:
        return self.call("GET", service, path, **kwargs)

    def post(self, service: str, path: str, json: Any = None, **kwargs: Any) -> httpx.Response:
        return self.call("POST", service, path, json, **kwargs)

    def patch(self, service: str, path: str, json: Any = None, **kwargs: Any) -> httpx.Response:
        return self.call("PATCH", service, path, json, **kwargs)

    def delete(self, service: str, path: str, **kwargs: Any) -> httpx.Response:
        return self.call("DELETE", service, path, **kwargs)


class Customer(Door):
    """A signed-in person."""

    def __init__(self, urls: dict[str, str], email: str, user_id: str, token: str, flow_id: str) -> None:
        super().__init__(urls, token)
        self.email = email
        self.user_id = user_id
        self.flow_id = flow_id
        """The flow of their sign-up."""

    @property
    def org_id(self) -> str:
        """The organization that came with their sign-up, once it is there."""
        return str(eventually(lambda: self.get("org", "/orgs").json()["items"][0]["id"], what="the organization of the sign-up"))


class TestMesh:
    """The running mesh as tests see it."""

    __test__ = False

    def __init__(self, mesh: Mesh, traces: Traces, log: Callable[[str], str] | None = None) -> None:
        self.mesh = mesh
        self.traces = traces
        self.log = log or (lambda name: mesh.state.log(name).read_text())
        """What a process has written."""
        self.status = mesh.status()
        self.urls = {name: s["url"] for name, s in self.status["services"].items() if s}
        self.anyone = Door(self.urls)
        self.operator = Door(self.urls, self.status["operator_token"])
        self._newcomers: list[Customer] = []

    def command(self, *words: str) -> Done:
        """What ``mesh`` says of this one."""
        return command(self.mesh.state.root, *words)

    def sign_up(self, organization: str | None = "Acme", email: str | None = None) -> Customer:
        """Signs a new person up and in. Their address is not verified yet."""
        email = email or f"ann.{uuid.uuid4().hex[:12]}@example.com"
        started = self.anyone.post("user", "/users", {"email": email, "password": PASSWORD, "name": "Ann", "organization": organization})
        assert started.status_code == 202, started.text
        token = self.sign_in(email)
        me = HTTP.get(self.urls["user"] + "/me", headers={"Authorization": f"Bearer {token}"}).json()
        return Customer(self.urls, email, me["id"], token, started.json()["flow_id"])

    def newcomer(self, of: int) -> Customer:
        """One of so many who sign up with an organization, eight at a time: side by side they take half as long."""
        if not self._newcomers:
            with ThreadPoolExecutor(CROWD) as crowd:
                self._newcomers = list(crowd.map(lambda _: self.sign_up(), range(min(CROWD, of))))
        return self._newcomers.pop()

    def sign_in(self, email: str, password: str = PASSWORD) -> str:
        answer = self.anyone.post("user", "/sessions", {"email": email, "password": password})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["access_token"])

    def mails(self, to: str, subject: str = "") -> list[dict[str, Any]]:
        """Mails in the inbox, newest first."""
        found = HTTP.get(self.status["mail"]["url"], params={"to": to}).json()
        return [m for m in found if to in m["to"] and subject.lower() in m["subject"].lower()]

    def rows(self, sql: str, *args: Any, database: str | None = None) -> list[dict[str, Any]]:
        """What an administrator sees in the control plane's database: for what no door shows."""

        async def fetch() -> list[dict[str, Any]]:
            connection = await asyncpg.connect(database or self.status["postgres"]["url"])
            try:
                return [dict(r) for r in await connection.fetch(sql, *args)]
            finally:
                await connection.close()

        return asyncio.run(fetch())

    @contextmanager
    def nothing_is_written(self, service: str, stream: str) -> Iterator[None]:
        """Every write of the service to the stream waits inside."""
        with asyncio.Runner() as runner:
            connection = runner.run(asyncpg.connect(self.status["postgres"]["url"]))
            try:
                runner.run(connection.execute("BEGIN"))
                runner.run(connection.execute(f'SELECT FROM "{service}".streams WHERE stream = $1 FOR UPDATE', stream))
                yield
            finally:
                runner.run(connection.close())

    def waiting(self, service: str) -> int:
        """How many transactions of the service wait for a lock."""
        waits = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'"
        return int(self.rows(waits, f"mesh-{service}")[0]["n"])
