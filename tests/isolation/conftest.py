"""Two tenants who have nothing to do with each other, both with something of everything."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.isolation.tenants import Tenant, settle
from tests.mesh import TestMesh


@pytest.fixture(scope="session")
def tenants(mesh: TestMesh) -> tuple[Tenant, Tenant]:
    with ThreadPoolExecutor(2) as both:
        ann, eve = both.map(settle, [mesh, mesh])
    return ann, eve


@pytest.fixture(scope="session")
def ann(tenants: tuple[Tenant, Tenant]) -> Tenant:
    """Whose things they are."""
    return tenants[0]


@pytest.fixture(scope="session")
def eve(tenants: tuple[Tenant, Tenant]) -> Tenant:
    """Whose things they are not."""
    return tenants[1]


@pytest.fixture(scope="module", autouse=True)
def signed_in(tenants: tuple[Tenant, Tenant]) -> None:
    """Anew for each module: an access token lives ten minutes, a run of the whole suite longer."""
    for tenant in tenants:
        for person in (tenant.owner, tenant.admin):
            person.headers["Authorization"] = f"Bearer {tenant.mesh.sign_in(person.email)}"
