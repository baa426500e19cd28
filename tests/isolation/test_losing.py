"""On a healthy bus, what was taken from somebody is gone everywhere within a second: in every service, and in the database."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import asyncpg
import pytest

from deploy.contracts import services
from tests.contracts.rest import OPERATIONS
from tests.contracts.test_roles import FOR_OPERATORS
from tests.flows.people import credentials, may_log_in, ready_database, verify
from tests.isolation.tenants import join, member_doors
from tests.mesh import HTTP, Customer, Door, TestMesh, eventually

WITHIN = 1.0
ANY_PERSON = {
    "user": "/me", "org": "/orgs", "billing": "/orgs/{org}/subscription", "notification": "/me/messages",
    "provisioning": "/orgs/{org}/databases", "console": "/orgs/{org}/flows",
}  # fmt: skip
"""A door of each service that is open for whoever proves who they are."""


class Home:
    """An organization whose owner uses its database."""

    def __init__(self, mesh: TestMesh) -> None:
        self.owner = mesh.sign_up()
        verify(mesh, self.owner)
        self.org_id = self.owner.org_id
        self.database_id = ready_database(self.owner)["id"]
        self.dsn = credentials(self.owner, self.org_id, self.database_id)


@pytest.fixture(scope="module")
def home(mesh: TestMesh) -> Home:
    return Home(mesh)


@pytest.fixture
def member(mesh: TestMesh, home: Home) -> Customer:
    """An admin of the organization, whom every service knows."""
    member = mesh.sign_up(organization=None)
    verify(mesh, member)
    join(mesh, home.owner, home.org_id, member, "admin")
    return member


@contextmanager
def in_session(dsn: str) -> Iterator[Callable[[], bool]]:
    """A session in the database; asks whether it is still there."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(dsn, timeout=5))

        def there() -> bool:
            try:
                return bool(runner.run(connection.fetchval("SELECT true", timeout=5)))
            except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):  # the last but one: ended while it was asked
                return False

        try:
            assert there()
            yield there
        finally:
            connection.terminate()


def all_within_a_second(since: float, looks: dict[str, Callable[[], bool]]) -> None:
    """Each of them comes true in time; asked all at once, so that none waits for another."""

    def seconds(look: Callable[[], bool]) -> float:
        eventually(look, timeout=10)
        return time.monotonic() - since

    with ThreadPoolExecutor(len(looks)) as pool:
        took = dict(zip(looks, pool.map(seconds, looks.values()), strict=True))
    assert max(took.values()) <= WITHIN, took


def statuses(mesh: TestMesh, token: str, doors: dict[str, str]) -> dict[str, Callable[[], int]]:
    """Each door as someone with this token and no memory finds it."""

    def asks(service: str, path: str) -> Callable[[], int]:
        who = Door(mesh.urls, token)
        return lambda: HTTP.get(who.urls[service] + path, headers={"Authorization": f"Bearer {token}"}).status_code

    return {service: asks(service, path) for service, path in doors.items()}


def answers(asking: dict[str, Callable[[], int]], status: int) -> dict[str, Callable[[], bool]]:
    return {service: lambda ask=ask: ask() == status for service, ask in asking.items()}  # type: ignore[misc]


def opened(asking: dict[str, Callable[[], int]]) -> None:
    for service, ask in asking.items():
        eventually(lambda ask=ask: ask() == 200, what=f"{service} lets them in before")  # type: ignore[misc]


def token_of(person: Customer) -> str:
    return person.headers["Authorization"].removeprefix("Bearer ")


def test_a_removed_member_loses_every_door_the_sessions_and_the_login(mesh: TestMesh, home: Home, member: Customer) -> None:
    asking = statuses(mesh, token_of(member), member_doors(home.org_id) | {"user": f"/users/{home.owner.user_id}"})
    opened(asking)
    dsn = credentials(member, home.org_id, home.database_id)
    with in_session(dsn) as there:
        removed = home.owner.delete("org", f"/orgs/{home.org_id}/members/{member.user_id}")
        since = time.monotonic()
        assert removed.status_code == 202, removed.text
        gone = {"sessions": lambda: not there(), "login": lambda: not may_log_in(dsn)}
        all_within_a_second(since, answers(asking, 404) | gone)


def test_a_suspended_organization_loses_changes_sessions_and_logins(mesh: TestMesh, home: Home) -> None:
    changing = [
        o for o in OPERATIONS
        if "{org_id}" in o.path and o.method != "GET" and not o.open_while_suspended and str(o) not in FOR_OPERATORS
    ]  # fmt: skip
    assert {o.service for o in changing} >= {"org", "provisioning"}
    someone = Door(mesh.urls, token_of(home.owner))
    with in_session(home.dsn) as there:
        suspended = home.owner.post("org", f"/orgs/{home.org_id}/suspend", {"reason": "a holiday"})
        since = time.monotonic()
        assert suspended.status_code == 202, suspended.text
        refused = {str(o): lambda o=o: o.call(someone, org_id=home.org_id).status_code == 423 for o in changing}  # type: ignore[misc]
        gone = {"sessions": lambda: not there(), "login": lambda: not may_log_in(home.dsn)}
        all_within_a_second(since, refused | gone)
    assert home.owner.get("org", f"/orgs/{home.org_id}").status_code == 200, "reading stays"
    assert home.owner.post("org", f"/orgs/{home.org_id}/resume").status_code == 202
    eventually(lambda: may_log_in(home.dsn), what="all is as before")


def proves(mesh: TestMesh, home: Home, token: str) -> dict[str, Callable[[], int]]:
    """Every service, asked by whoever proves to be the owner with this token; each lets them in now."""
    asking = statuses(mesh, token, {service: path.format(org=home.org_id) for service, path in ANY_PERSON.items()})
    assert asking.keys() == set(services())
    opened(asking)
    return asking


def test_a_revoked_key_opens_no_door(mesh: TestMesh, home: Home) -> None:
    key = home.owner.post("user", "/me/api-keys", {"name": "robot", "scopes": ["read", "write"]}).json()
    asking = proves(mesh, home, key["secret"])
    assert home.owner.delete("user", f"/me/api-keys/{key['id']}").status_code == 204
    all_within_a_second(time.monotonic(), answers(asking, 401))


def test_an_ended_session_opens_no_door(mesh: TestMesh, home: Home) -> None:
    session = mesh.sign_in(home.owner.email)
    asking = proves(mesh, home, session)
    assert Door(mesh.urls, session).delete("user", "/sessions/current").status_code == 204
    all_within_a_second(time.monotonic(), answers(asking, 401))
