"""Remembers how each test of this session ended, and lets the check of the promises run last."""

import pytest

from tests.contracts.promises import OUTCOMES, Outcomes


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    outcomes = Outcomes({item.nodeid for item in items})
    config.stash[OUTCOMES] = outcomes
    config.pluginmanager.register(outcomes, "outcomes of this session")
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)
