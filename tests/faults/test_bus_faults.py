"""The parts of the bus are killed in the middle of work; nothing is lost and nothing happens twice."""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.mesh import PASSWORD, Customer, TestMesh, eventually


class SignUps(threading.Thread):
    """Signs people up at a steady rate, repeating a request with its Idempotency-Key until it is acknowledged."""

    def __init__(self, mesh: TestMesh, every: float = 0.1) -> None:
        super().__init__(daemon=True)
        self.mesh, self.every = mesh, every
        self.acknowledged: list[str] = []
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.wait(self.every):
            name = uuid.uuid4().hex
            body = {"email": f"{name}@example.com", "password": PASSWORD, "name": "Load", "organization": f"Org {name}"}
            while not self.enough.is_set() and not self._signed_up(name, body):
                time.sleep(0.1)

    def _signed_up(self, name: str, body: dict[str, str]) -> bool:
        try:
            answer = httpx.post(self.mesh.urls["user"] + "/users", json=body, headers={"Idempotency-Key": name}, timeout=5)
        except httpx.HTTPError:
            return False
        if answer.status_code == 202:
            self.acknowledged.append(name)
        return answer.status_code == 202


@contextmanager
def sign_ups(mesh: TestMesh) -> Iterator[SignUps]:
    load = SignUps(mesh)
    load.start()
    try:
        yield load
    finally:
        load.enough.set()
        load.join(timeout=10)


def organizations(mesh: TestMesh, names: list[str]) -> list[str]:
    return [r["name"] for r in mesh.rows("SELECT name FROM org.organizations WHERE name = ANY($1)", [f"Org {n}" for n in names])]


@pytest.mark.parametrize("victim", ["kafka", "connect", "org", "user", "postgres"])
def test_a_killed_part_loses_nothing_and_doubles_nothing(mesh: TestMesh, victim: str) -> None:
    with sign_ups(mesh) as load:
        eventually(lambda: len(load.acknowledged) >= 5, what="load before the fault")
        mesh.mesh.kill(victim)
        before = len(load.acknowledged)
        eventually(lambda: len(load.acknowledged) >= before + 5, timeout=45, what="the API accepts again")
    mesh.mesh.wait_healthy(60)
    names = load.acknowledged
    eventually(lambda: len(organizations(mesh, names)) >= len(names), timeout=45, what=f"all {len(names)} organizations")
    assert sorted(organizations(mesh, names)) == sorted(f"Org {n}" for n in names), "each exactly once"


def test_an_organization_still_answers_while_the_bus_is_away(mesh: TestMesh, customer: Customer) -> None:
    org = customer.org_id
    mesh.mesh.kill("kafka")
    renamed = customer.patch("org", f"/orgs/{org}", {"name": "Renamed"})
    assert renamed.status_code == 200
    mesh.mesh.wait_healthy(60)
