"""People with a database of their own, and a way to speak as the agent of a data plane."""

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from confluent_kafka import Producer

from schemas.feed import Report
from shared.tx import Database, Tx
from tests.flows.people import credentials, ready_database, verify
from tests.mesh import Customer, TestMesh, eventually


class Home:
    """An organization with its first database, seen by its owner."""

    def __init__(self, mesh: TestMesh) -> None:
        self.mesh = mesh
        self.owner = mesh.sign_up()
        self.org_id = self.owner.org_id
        self.id: str = ready_database(self.owner)["id"]

    @property
    def path(self) -> str:
        return f"/orgs/{self.org_id}/databases/{self.id}"

    def database(self, id: str | None = None) -> dict[str, Any]:
        answer = self.owner.get("provisioning", f"/orgs/{self.org_id}/databases/{id or self.id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def becomes(self, state: str, id: str | None = None, timeout: float = 30) -> dict[str, Any]:
        def look() -> dict[str, Any]:
            seen = self.database(id)
            assert seen["state"] == state, seen
            return seen

        return eventually(look, timeout)

    def dsn(self) -> str:
        return credentials(self.owner, self.org_id, self.id)

    def verified(self) -> Customer:
        verify(self.mesh, self.owner)
        return self.owner

    def advance(self, days: float) -> None:
        answer = self.mesh.operator.post("org", f"/orgs/{self.org_id}/clock", {"advance_seconds": int(days * 86400)})
        assert answer.status_code == 202, answer.text

    def say_again_now(self) -> None:
        """What the data plane has not confirmed is said again at once, not when it is time."""
        self.rows("UPDATE provisioning.due SET due_at = now() WHERE target = 'org:' || $1::uuid AND kind LIKE '%_unobserved'")

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What an administrator sees; ``$1`` is the organization."""
        return self.mesh.rows(sql, UUID(self.org_id))

    def heard(self) -> dict[str, Any]:
        """The newest report that was taken in."""
        return self.rows("SELECT * FROM provisioning.reports WHERE org_id = $1")[0]


@pytest.fixture
def home(mesh: TestMesh) -> Home:
    return Home(mesh)


Say = Callable[[bytes | None, str], None]


@pytest.fixture(scope="session")
def say(mesh: TestMesh) -> Say:
    """Puts bytes on the reports topic as the data plane's own user would, and waits until provisioning has read past them."""
    producer = Producer(mesh.mesh.broker.client("agent-local"))

    def produce(value: bytes | None, key: str) -> None:
        producer.produce("dataplane.local.reports", value, key)
        assert producer.flush(10) == 0

    return produce


def report(home: Home, resources: list[dict[str, Any]], *, data_plane: str = "local", later: int = 0, complete: bool = False) -> bytes:
    """A report that is so much later than the newest that was heard."""
    heard = home.heard()
    made = Report.model_validate(
        {
            "data_plane": data_plane, "agent_epoch": heard["agent_epoch"], "counter": heard["counter"] + later, "at": "2026-01-01T00:00:00Z",
            "org_id": home.org_id, "assignment_generation": 1, "complete": complete, "resources": resources,
        }
    )  # fmt: skip
    return made.model_dump_json().encode()


class _TakeBack(Exception):
    pass


@pytest_asyncio.fixture
async def tx(mesh: TestMesh) -> AsyncIterator[Tx]:
    """A transaction of the service that is taken back."""
    database = await Database.connect(mesh.mesh.databases.url("provisioning", "app"), "provisioning", 1)
    try:
        async with database.transaction() as tx:
            yield tx
            raise _TakeBack
    except _TakeBack:
        pass
    finally:
        await database.close()
