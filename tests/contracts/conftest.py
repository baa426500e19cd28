"""Has the guide followed beside those tests that need no mesh."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.contracts.guide import follow_and_check


@pytest.fixture(scope="session")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[None]]:
    """Somebody follows the guide to a new flow; done when they are."""
    with ThreadPoolExecutor() as somebody:
        yield somebody.submit(follow_and_check, tmp_path_factory.mktemp("guide"))


@pytest.fixture(autouse=True)
def begun_early(request: pytest.FixtureRequest) -> None:
    """Beside the first tests that need no mesh: it takes half a minute of a core."""
    if "mesh" not in request.fixturenames and any("followed" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("followed")
