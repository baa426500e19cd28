"""What the documents point at is there."""

import re
from pathlib import PurePath

import pytest

from tests.rules.files import ROOT, texts

_LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")
DOCUMENTS = [
    "README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/how-to-add-a-flow.md", "docs/metrics.md", "docs/acceptance.md", "docs/operating.md", "docs/runbook.md",
    "docs/configuration.md", "docs/containers.md",
]  # fmt: skip


def dead_links(path: PurePath, text: str) -> list[str]:
    """Links to files that are not there."""
    return [link for link in _LINK.findall(text) if not (ROOT / path.parent / link).exists()]


def test_no_link_is_dead() -> None:
    dead = [f"{path}: {link}" for path, text in texts(".md") for link in dead_links(path, text)]
    assert not dead, "\n".join(dead)


def test_a_dead_link_is_caught() -> None:
    assert dead_links(PurePath("docs/x.md"), "see [this](nowhere.md), [that](../README.md#two-commands) and [there](https://example.com)") == ["nowhere.md"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_documents_for_readers_are_there(document: str) -> None:
    assert len((ROOT / document).read_text()) > 200


def test_every_decision_says_its_context_its_consequences_and_what_keeps_it() -> None:
    decisions = [text for path, text in texts(".md") if path.parent == PurePath("docs/decisions")]
    assert len(decisions) >= 5
    for text in decisions:
        assert all(f"**{part}" in text for part in ("Context", "Decision", "Consequences", "The check that keeps it")), text.splitlines()[0]
