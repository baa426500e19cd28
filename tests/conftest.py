"""One real mesh for the whole run: started once, on free ports, with a state of its own.

``MESH_TEST_STATE=<folder>`` keeps the mesh of that folder running between runs, for a fast loop.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.stack import Mesh
from tests.mesh import Customer, TestMesh
from tests.traces import Traces


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--databases", type=int, default=None, help="How many databases the services share, with a connector each.")
    parser.addoption("--data-planes", type=int, default=None, help="How many data planes.")


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[TestMesh]:
    """The running mesh. Tests share it, so each makes organizations and people of its own."""
    kept = os.environ.get("MESH_TEST_STATE")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("mesh state")
    traces = Traces.for_mesh(folder)
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = traces.endpoint
    try:
        wishes = {wish: request.config.getoption(f"--{wish.replace('_', '-')}") for wish in ("databases", "data_planes")}
        running = Mesh.start(folder, **wishes, report=lambda step: print(f"  {step.step}: {step.state} after {step.seconds:.1f} s"))
        yield TestMesh(running, traces)
    finally:
        if not kept:
            Mesh.at(folder).reset()


@pytest.fixture
def customer(mesh: TestMesh) -> Customer:
    """A person who has just signed up with an organization of their own, signed in."""
    return mesh.sign_up(organization="Acme")
