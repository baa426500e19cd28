"""Remembers how each test of this session ended."""

import pytest

from tests.contracts.promises import OUTCOMES, Outcomes


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    outcomes = Outcomes({item.nodeid for item in items})
    config.stash[OUTCOMES] = outcomes
    config.pluginmanager.register(outcomes, "outcomes of this session")
