"""The table of docs/acceptance.md: which promise is shown by which test, and how that test ended."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

DOCUMENT = "docs/acceptance.md"

_ROW = re.compile(r"^\|(?P<promise>[^|]+)\|(?P<tests>[^|]+)\|\s*$")
_TEST = re.compile(r"`(tests/[\w/]+\.py::\w+)`")


@dataclass(frozen=True)
class Promise:
    """One row of the table. ``tests`` are written ``tests/path.py::name``."""

    words: str
    tests: tuple[str, ...]


def promises(text: str) -> Iterator[Promise]:
    """The rows, in order. A row that names no test has none."""
    for line in text.splitlines():
        row = _ROW.match(line)
        if row and row["promise"].strip() != "promise" and not set(row["promise"].strip()) <= set("-: "):
            yield Promise(row["promise"].strip(), tuple(_TEST.findall(row["tests"])))


def exists(root: Path, test: str) -> bool:
    """Whether the file defines a test of this name."""
    path, _, name = test.partition("::")
    if not (root / path).exists():
        return False
    tree = ast.parse((root / path).read_text())
    return any(isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name == name for n in ast.walk(tree))


@dataclass(eq=False)
class Outcomes:
    """How the tests of this session ended, by name without parameters. A plugin of pytest."""

    collected: set[str]
    ended: dict[str, str] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self.ended[report.nodeid] = report.outcome

    def of(self, test: str) -> set[str]:
        """``passed``, ``failed``, ``skipped``, ``not run`` of each of its cases; nothing when it was not collected."""
        return {self.ended.get(one, "not run") for one in self.collected if one.partition("[")[0] == test}


OUTCOMES = pytest.StashKey[Outcomes]()
