"""What billing's tests see of Stripe and of billing's own rows, and how they hurt them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.mesh import HTTP, TestMesh, eventually


class Billing:
    """Billing as an administrator sees it, with Stripe behind it."""

    def __init__(self, mesh: TestMesh) -> None:
        self.mesh = mesh

    def at_stripe(self, org_id: str) -> list[dict[str, Any]]:
        """The customers that Stripe has for the organization."""
        stripe = self.mesh.status["stripe"]
        query = {"query": f"metadata['mesh_id']:'{org_id}'"}
        found = HTTP.get(f"{stripe['url']}/v1/customers/search", params=query, headers={"Authorization": f"Bearer {stripe['api_key']}"})
        return list(found.raise_for_status().json()["data"])

    def customer_states(self, org_id: str) -> list[str]:
        """Every ``customer_state`` that was published of the organization, in order: what others saw."""
        return [
            r["state"]
            for r in self._admin(
                "SELECT payload::jsonb -> 'after' ->> 'customer_state' AS state FROM billing.changes "
                "WHERE stream = $1 AND NOT again AND payload::jsonb ->> 'table' = 'subscriptions' ORDER BY seq",
                f"org:{org_id}",
            )
        ]

    def attempts(self, org_id: str, kind: str = "stripe_customer") -> int:
        """How often the work was begun; 0 when there is none."""
        rows = self._admin("SELECT attempt FROM billing.due WHERE kind = $1 AND target = $2", kind, f"org:{org_id}")
        return rows[0]["attempt"] if rows else 0

    def lease_ends(self, org_id: str) -> None:
        """What half a minute brings about."""
        self._admin("UPDATE billing.due SET leased_until = now() WHERE kind = 'stripe_customer' AND target = $1", f"org:{org_id}")

    def budget_ends(self, org_id: str) -> None:
        """What a day and a quarter of trying brings about."""
        self._admin(
            "UPDATE billing.due SET since = now() - interval '31 hours', leased_until = now() WHERE target = $1 AND kind = 'stripe_customer'", f"org:{org_id}"
        )

    def _admin(self, sql: str, *args: Any) -> list[dict[str, Any]]:
        return self.mesh.rows(sql, *args)

    @contextmanager
    def away(self, name: str) -> Iterator[None]:
        """A process of the mesh is killed and stays down."""
        self.mesh.mesh.hold(name)
        try:
            self.mesh.mesh.kill(name)
            yield
        finally:
            self.mesh.mesh.release(name)
        self.serves(name)

    @contextmanager
    def stripe_is_slow(self) -> Iterator[None]:
        """Stripe takes requests and does not answer until the end of the block."""
        self.mesh.mesh.kill("stripe", signal.SIGSTOP)
        try:
            yield
        finally:
            self.mesh.mesh.kill("stripe", signal.SIGCONT)

    def serves(self, name: str) -> None:
        """Waits until the process answers again."""
        url = self.mesh.urls.get(name) or self.mesh.status[name]["url"]
        eventually(lambda: _ready(url), timeout=40, what=f"{name} to serve")


def _ready(url: str) -> bool:
    try:
        return HTTP.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def billing(mesh: TestMesh) -> Billing:
    return Billing(mesh)
