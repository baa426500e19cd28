"""While the bus is away."""

import pytest

from tests.mesh import Customer, TestMesh

pytestmark = pytest.mark.processes


def test_an_organization_still_answers_while_the_bus_is_away(mesh: TestMesh, customer: Customer) -> None:
    org = customer.org_id
    mesh.mesh.kill("kafka")
    renamed = customer.patch("org", f"/orgs/{org}", {"name": "Renamed"})
    assert renamed.status_code == 200
    mesh.mesh.wait_healthy(60)
