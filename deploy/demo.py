"""``mesh demo``: one customer's story on a mesh of its own, from the sign-up to a statement in their database."""

import asyncio
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from deploy import terminal
from deploy.errors import MeshError
from deploy.flows import ms_since_start
from deploy.progress import Reporter
from deploy.stack import Mesh

Json = dict[str, Any]
_PASSWORD = "a long and quiet river"  # noqa: S105 - of people who live as long as the demo
_TOKEN = re.compile(r"\?token=([\w.-]+)")


@cache
def _http() -> httpx.Client:
    """One for the whole demo: each that is made reads every certificate authority of this machine."""
    return httpx.Client(timeout=70)


@dataclass
class Person:
    """Somebody at the doors; hands on the positions of their own writes, so that every service has seen them."""

    urls: dict[str, str]
    email: str
    headers: dict[str, str] = field(default_factory=dict)

    def call(self, method: str, service: str, path: str, body: Json | None = None, *, expect: int = 200) -> Json:
        """One request. Raises :class:`MeshError` with the answer when it is another than expected."""
        answer = _http().request(method, self.urls[service] + path, json=body, headers=self.headers)
        if answer.status_code != expect:
            raise MeshError(f"{method} {service}{path} answered {answer.status_code}, not {expect}: {answer.text}", "Look closer: mesh logs " + service)
        if "Mesh-Position" in answer.headers:
            self.headers["Mesh-Position"] = answer.headers["Mesh-Position"]
        return dict(answer.json()) if answer.content else {}

    def sign_up(self, organization: str | None) -> str:
        """Signs up and in; answers the flow's id."""
        name = self.email.partition("@")[0].capitalize()
        body = {"email": self.email, "password": _PASSWORD, "name": name, "organization": organization}
        flow: str = self.call("POST", "user", "/users", body, expect=202)["flow_id"]
        session = self.call("POST", "user", "/sessions", {"email": self.email, "password": _PASSWORD}, expect=201)
        self.headers["Authorization"] = f"Bearer {session['access_token']}"
        return flow

    def finished(self, flow_id: str) -> Json:
        """The flow when it is done. Raises :class:`MeshError` when it is not within a minute."""
        flow = self.call("GET", "console", f"/flows/{flow_id}?wait=60")
        if flow["state"] != "done":
            raise MeshError(f"The flow {flow['flow']} is {flow['state']}, not done: {flow['steps']}", f"Look closer: mesh flows show {flow_id}")
        return flow


class Demo:
    """The story, on a mesh that is up."""

    def __init__(self, mesh: Mesh) -> None:
        status = mesh.status()
        self.urls = {name: service["url"] for name, service in status["services"].items()}
        self.inbox = status["mail"]["url"]
        self.ann = Person(self.urls, f"ann.{uuid.uuid4().hex[:6]}@example.com")
        self.bob = Person(self.urls, f"bob.{uuid.uuid4().hex[:6]}@example.com")
        self.org = ""
        self.database: Json = {}
        self.dsn = ""

    def run(self) -> None:
        self.sign_up()
        self.invite()
        self.suspend_and_resume()

    def sign_up(self) -> None:
        terminal.heading("Ann signs up with her organization")
        began = time.monotonic()
        _timeline(self.ann.finished(self.ann.sign_up("Acme")))
        self.org = self.ann.call("GET", "org", "/orgs")["items"][0]["id"]
        self.database = self.ann.call("GET", "provisioning", f"/orgs/{self.org}/databases")["items"][0]
        made = self.ann.call("POST", "provisioning", f"/orgs/{self.org}/databases/{self.database['id']}/credentials", expect=201)
        self.dsn = made["dsn"]
        answer = _until_open(
            self.dsn, "CREATE TABLE greetings (text text); INSERT INTO greetings VALUES ('hello from my own database')", "SELECT text FROM greetings"
        )
        terminal.line(f"  with Ann's own credentials: [green]{answer}[/]  ({(time.monotonic() - began) * 1000:.0f} ms after she clicked)")

    def invite(self) -> None:
        terminal.heading("Ann invites Bob")
        self._verify(self.ann)
        self.bob.sign_up(None)
        self._verify(self.bob)
        self.ann.headers["Mesh-Position"] = self.bob.headers["Mesh-Position"] = f"{self.ann.headers['Mesh-Position']}, {self.bob.headers['Mesh-Position']}"
        invited = self.ann.call("POST", "org", f"/orgs/{self.org}/invitations", {"email": self.bob.email, "role": "member"}, expect=202)
        self._mail(self.bob.email, "invit")
        self.bob.call("POST", "org", f"/invitations/{invited['id']}/accept", expect=202)
        _timeline(self.bob.finished(invited["flow_id"]))
        made = self.bob.call("POST", "provisioning", f"/orgs/{self.org}/databases/{self.database['id']}/credentials", expect=201)
        terminal.line(f"  with Bob's own credentials: [green]{_until_open(made['dsn'], 'SELECT 1', 'SELECT text FROM greetings')}[/]")

    def suspend_and_resume(self) -> None:
        terminal.heading("The organization is suspended and resumed")
        suspended = self.ann.call("POST", "org", f"/orgs/{self.org}/suspend", {"reason": "a holiday"}, expect=202)
        _timeline(self.ann.finished(suspended["flow_id"]))
        terminal.line(f"  a login now: [yellow]{_refusal(self.dsn)}[/]")
        _timeline(self.ann.finished(self.ann.call("POST", "org", f"/orgs/{self.org}/resume", expect=202)["flow_id"]))
        terminal.line(f"  a login again: [green]{_until_open(self.dsn, 'SELECT 1', 'SELECT text FROM greetings')}[/]")

    def _verify(self, person: Person) -> None:
        text = self._mail(person.email, "verify")["text"]
        found = _TOKEN.search(text)
        if found is None:
            raise MeshError("The mail has no link.", "mesh mail list")
        person.call("POST", "user", "/users/verify", {"token": found[1]}, expect=204)

    def _mail(self, to: str, about: str) -> Json:
        def look() -> Json | None:
            mails = _http().get(self.inbox, params={"to": to}).json()
            return next((m for m in mails if about in m["subject"].lower()), None)

        mail: Json = _until(look, f"a mail to {to} whose subject speaks of {about}")
        terminal.line(f"  mailed to {to}: {mail['subject']}")
        return mail


def _timeline(flow: Json) -> None:
    """Each step with the service it happened in and the milliseconds since the flow began."""
    terminal.table(sorted([f"{ms_since_start(flow, step):8.0f} ms", step["name"], step["service"]] for step in flow["steps"] if step["at"]))
    terminal.line(f"  [green]{flow['flow']}: {flow['state']}[/]")


def _until(look: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen = look()
        if seen:
            return seen
        time.sleep(0.02)
    raise MeshError(f"There was not {what} within {seconds:.0f} s.", "mesh status")


async def _execute(dsn: str, *statements: str) -> str:
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return str(await connection.fetchval(statements[-1]))
    finally:
        await connection.close()


def _until_open(dsn: str, *statements: str) -> str:
    """The last statement's answer, as soon as the login is let in."""

    def look() -> str | None:
        try:
            return asyncio.run(_execute(dsn, *statements))
        except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidPasswordError):
            return None

    return str(_until(look, "a login that works"))


def _refusal(dsn: str) -> str:
    try:
        asyncio.run(_execute(dsn, "SELECT 1"))
    except asyncpg.PostgresError as error:
        return str(error)
    raise MeshError("A suspended organization's login was let in.", "mesh logs agent-local")


def demo() -> None:
    """Run a mesh of its own, walk one customer through it, and stop it again (about a minute)."""
    folder = Path(tempfile.mkdtemp(prefix="mesh demo "))
    began = time.monotonic()
    terminal.line("Starting a mesh of its own on free ports …")
    mesh = Mesh.at(folder)
    try:
        mesh = Mesh.start(folder, report=Reporter())
        terminal.line(f"The mesh is up after {time.monotonic() - began:.1f} s.")
        Demo(mesh).run()
    finally:
        mesh.reset()
        shutil.rmtree(folder, ignore_errors=True)
    terminal.line(f"\n[green]The demo is over[/] after {time.monotonic() - began:.1f} s; what it started is stopped and gone.")
