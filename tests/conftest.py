"""One real mesh for the whole run: started once, on free ports, with a state of its own.

``MESH_TEST_STATE=<folder>`` keeps the mesh of that folder running between runs, for a fast loop. ``--stack=containers`` takes the
mesh of docker-compose.yml instead, without the tests that hurt the local stack's processes.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from deploy.stack import Mesh
from tests import containers
from tests.complaints import complaints
from tests.contracts.promises import DOCUMENT, watch
from tests.flows.people import verify
from tests.mesh import Customer, TestMesh
from tests.rules.files import ROOT
from tests.traces import Traces

APART = {"agent", "bench", "deploy", "faults", "kit", "rules"}
"""Folders whose tests need no mesh, or have one of their own. ``make test`` runs them beside those of the one mesh."""
LEFT_OUT = pytest.StashKey[list[pytest.Item]]()
COMPLAINTS = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stack", choices=("local", "containers"), default="local", help="What the mesh of the tests is made of.")
    parser.addoption("--databases", type=int, default=None, help="How many databases the services share, with a connector each.")
    parser.addoption("--data-planes", type=int, default=None, help="How many data planes.")


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")  # who is ended soon and often gains nothing from a better compiler
    if config.getoption("--stack") == "containers":
        if config.getoption("--databases") or config.getoption("--data-planes"):
            raise pytest.UsageError("--databases and --data-planes are for the local stack: docker-compose.yml has one of each.")
        containers.require_engine()
    watch(config, (ROOT / DOCUMENT).read_text())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=_turn)
    if config.getoption("--stack") == "containers":
        config.stash[LEFT_OUT] = containers.leave_out(config, items)


def _turn(item: pytest.Item) -> tuple[int, str]:
    """In random order, but those that need no mesh first, then those with one of their own, one mesh after the other. What is done beside
    others is asked for after them.
    """
    fixtures = getattr(item, "fixturenames", ())
    if "bus" in fixtures:
        return 3, ""
    if "followed" in fixtures:
        return 0, "z"
    return 1 if "tried" in fixtures else 2 if "ground" in fixtures else 4 if "mesh" in fixtures else 0, ""


def _folder(nodeid: str) -> str:
    return nodeid.split("/")[1]


class Halves(LoadScopeScheduling):
    """Two processes share the tests: one has those of the one mesh, the other all others."""

    def _split_scope(self, nodeid: str) -> str:
        return "apart" if _folder(nodeid) in APART else "mesh"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Halves:
    return Halves(config, log)


def pytest_itemcollected(item: pytest.Item) -> None:
    if "mesh" in getattr(item, "fixturenames", ()) and _folder(item.nodeid) in APART:
        raise pytest.UsageError(f"{item.nodeid} takes the one mesh, whose tests run in another process than tests/{_folder(item.nodeid)}: move it.")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What the process of one half knows that nobody else does."""
    node.config.stash[COMPLAINTS] = node.config.stash.get(COMPLAINTS, []) + getattr(node, "workeroutput", {}).get("complaints", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What the mesh complained about when something failed; what was not run on containers: nobody may think that it was."""
    if complained := config.stash.get(COMPLAINTS, []):
        terminalreporter.section("what the processes of the mesh complained about")
        for line in complained:
            terminalreporter.line(line)
    left_out = config.stash.get(LEFT_OUT, [])
    if left_out:
        terminalreporter.section(f"not run on containers: {len(left_out)} tests of the local stack's processes")
        for item in left_out:
            terminalreporter.line(item.nodeid)


@pytest.fixture(autouse=True)
def hands_off(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that ends or holds a process says so by its marker; on containers it could not run."""
    if not containers.touches_processes(request.node):
        for touch in ("kill", "hold"):
            monkeypatch.setattr(Mesh, touch, _refuse)


def _refuse(*_: object) -> None:
    raise AssertionError(f"mark this test with pytest.mark.{containers.MARKER}: it touches processes of the local stack")


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[TestMesh]:
    """The running mesh. Tests share it, so each makes organizations and people of its own."""
    if request.config.getoption("--stack") == "containers":
        with containers.running(tmp_path_factory.mktemp("mesh state")) as running:
            yield running
    else:
        yield from _local(tmp_path_factory, request)


def _local(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[TestMesh]:
    kept = os.environ.get("MESH_TEST_STATE")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("mesh state")
    traces = Traces.for_mesh(folder)
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = traces.endpoint
    try:
        wishes = {wish: request.config.getoption(f"--{wish.replace('_', '-')}") for wish in ("databases", "data_planes")}
        running = Mesh.start(folder, **wishes, report=lambda step: print(f"  {step.step}: {step.state} after {step.seconds:.1f} s"))
        yield TestMesh(running, traces)
    finally:
        if request.session.testsfailed:
            _keep(request.config, complaints(folder / "logs"))
        if not kept:
            Mesh.at(folder).reset()


@pytest.fixture(scope="session")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A mesh without services, for the tests that hurt it, in a folder with a space in its name."""
    mesh = Mesh.at(tmp_path_factory.mktemp("a bus"))
    try:
        yield Mesh.start(mesh.state.root, services=())
    finally:
        mesh.reset()


def _keep(config: pytest.Config, lines: list[str]) -> None:
    if hasattr(config, "workeroutput"):
        config.workeroutput["complaints"] = lines
    else:
        config.stash[COMPLAINTS] = lines


@pytest.fixture
def customer(mesh: TestMesh, request: pytest.FixtureRequest) -> Customer:
    """A person who has signed up with an organization of their own a moment ago, signed in."""
    return mesh.newcomer(of=sum("customer" in getattr(item, "fixturenames", ()) for item in request.session.items))


@pytest.fixture
def person(mesh: TestMesh) -> Customer:
    """Somebody who has just signed up without an organization, signed in: far less work for the mesh than a customer."""
    return mesh.sign_up(organization=None)


@pytest.fixture
def verified(mesh: TestMesh, customer: Customer) -> Customer:
    """The customer, who has followed the link in the first mail."""
    verify(mesh, customer)
    return customer
