"""Remembers how each test of this session ended, and has the guide followed beside those that need no mesh."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.contracts.guide import follow_and_check
from tests.contracts.promises import OUTCOMES, Outcomes


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    outcomes = Outcomes({item.nodeid for item in items})
    config.stash[OUTCOMES] = outcomes
    config.pluginmanager.register(outcomes, "outcomes of this session")


@pytest.fixture(scope="session")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[None]]:
    """Somebody follows the guide to a new flow; done when they are."""
    with ThreadPoolExecutor() as somebody:
        yield somebody.submit(follow_and_check, tmp_path_factory.mktemp("guide"))


@pytest.fixture(scope="session", autouse=True)
def begun_early(request: pytest.FixtureRequest) -> None:
    """It takes half a minute of a core that nobody else needs as long as there is no mesh."""
    if any("followed" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("followed")
