"""The table of docs/acceptance.md: which promise is shown by which test, and how that test ended."""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
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
    return name in _functions(root / path)


@cache
def _functions(file: Path) -> set[str]:
    if not file.exists():
        return set()
    return {n.name for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}


@dataclass(eq=False)
class Outcomes:
    """How the tests of this session ended, by name without parameters, and whether each promise was shown by them. A plugin of pytest,
    for the process that hears of all tests: with several at work none of those does.
    """

    rows: list[Promise]
    collected: set[str] = field(default_factory=set)
    ended: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.collected.update(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self.collected.update(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if (report.when == "call" or not report.passed) and self.ended.get(report.nodeid) != "failed":
            self.ended[report.nodeid] = report.outcome

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if _is_whole(session):
            self.wrong = list(self.unshown())
        if self.wrong and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.wrong:
            terminalreporter.section(f"promises of {DOCUMENT} that this run did not show", red=True)
            for line in self.wrong:
                terminalreporter.line(line)

    def of(self, test: str) -> set[str]:
        """``passed``, ``failed``, ``skipped``, ``not run`` of each of its cases; nothing when it was not collected."""
        return {self.ended.get(one, "not run") for one in self.collected if one.partition("[")[0] == test}

    def unshown(self) -> Iterator[str]:
        """In words: each promise with a test that did not pass or is not there."""
        for promise in self.rows:
            for test in promise.tests:
                ended = self.of(test)
                if ended != {"passed"}:
                    yield f"{promise.words}: {test} {', '.join(sorted(ended)) or 'was not collected'}"


def _is_whole(session: pytest.Session) -> bool:
    """Whether this was the whole suite: nothing chosen, nothing left out, and run to its end."""
    option = session.config.option
    chosen = option.keyword or option.markexpr or option.deselect or option.ignore or option.ignore_glob or option.collectonly
    elsewhere = session.config.getoption("--stack", "local") != "local"
    ended = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not (session.shouldstop or session.shouldfail)
    return ended and session.config.args_source is pytest.Config.ArgsSource.TESTPATHS and not chosen and not elsewhere


def watch(config: pytest.Config, table: str) -> None:
    """Has a session judged by this table, in the process that hears of all of its tests."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcomes(list(promises(table))))
