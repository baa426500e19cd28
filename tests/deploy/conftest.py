"""A mesh of its own for the tests that hurt it: the bus alone, in a folder with a space in its name."""

from collections.abc import Iterator

import pytest

from deploy.stack import Mesh


@pytest.fixture(scope="package")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """One for all of them: they run one after the other, before there is a whole mesh."""
    mesh = Mesh.at(tmp_path_factory.mktemp("a bus"))
    try:
        yield Mesh.start(mesh.state.root, services=())
    finally:
        mesh.reset()
