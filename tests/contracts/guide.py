"""The guide to a new flow, and somebody who does what it says in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.rules.files import ROOT, all_files

GUIDE = (ROOT / "docs/how-to-add-a-flow.md").read_text()

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_STEP = re.compile(r"^(?:[^\n]* )?(New file|Add to|Change) `([^`]+)`[^\n]*:\n\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STEPS = {path: (what, text) for what, path, _, text in _STEP.findall(GUIDE)}
"""What is done to which file."""
CHECKS = (
    "tests/rules/test_house.py::test_python_files_keep_the_rule", "tests/rules/test_house.py::test_all_files_keep_the_rule",
    "tests/rules/test_house.py::test_every_table_says_who_may_see_its_rows", "tests/contracts/test_wiring.py", "tests/contracts/test_doors.py", "tests/contracts/test_roles.py::test_every_named_door_is_there",
    "tests/console/test_folding.py::test_every_row_of_a_step_matters_to_flows_also_where_no_value_of_it_is_asked_for",
    "tests/contracts/test_locked.py::test_the_locked_schemas_are_those_of_the_models",
    "tests/contracts/test_openapi.py::test_the_checked_in_document_is_the_services_own", "tests/contracts/test_openapi.py::test_every_door_says_what_it_does",
    "tests/isolation/test_endpoints.py::test_every_door_is_known_to_somebody", "tests/isolation/test_endpoints.py::test_every_door_that_asks_for_nobody_is_named",
)  # fmt: skip
"""Tests of the project that need no mesh."""


def new(there: str | None, text: str) -> str:
    assert there is None, "it is new no more"
    return text


def added(there: str, text: str) -> str:
    """The imports to the others at the top, the rest at the end."""
    lines = text.splitlines(keepends=True)
    imports = [line for line in lines if line.startswith(("from ", "import "))]
    rest = "".join(line for line in lines if line not in imports).lstrip("\n")
    first = re.search(r"^(from|import) ", there, re.MULTILINE)
    assert first
    return f"{there[: first.start()]}{''.join(imports)}{there[first.start() :]}\n\n{rest}"


def changed(there: str, diff: str) -> str:
    """What stands there without a plus becomes what stands there without a minus."""
    lines = diff.splitlines(keepends=True)
    before, after = ("".join(line[1:] for line in lines if line[0] != sign) for sign in "+-")
    assert there.count(before) == 1, f"it does not say, or says more than once:\n{before}"
    return there.replace(before, after)


def follow(folder: Path) -> None:
    for path, (what, text) in STEPS.items():
        file = folder / path
        there = file.read_text() if file.exists() else None
        act = {"New file": new, "Add to": added, "Change": changed}[what]
        file.write_text(act(there, text))  # type: ignore[operator]


def _project(folder: Path) -> None:
    """A copy of the project with its tools; what the type checker knows already comes along."""
    for path in all_files():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, folder / path)
    (folder / ".venv").symlink_to(sys.prefix)
    if (ROOT / ".mypy_cache").exists():
        shutil.copytree(ROOT / ".mypy_cache", folder / ".mypy_cache")


def run(folder: Path, *command: str) -> None:
    """In the copy, whose modules hide those that are installed."""
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def follow_and_check(project: Path) -> None:
    """In an empty folder. Raises AssertionError where anything of what the guide promises does not hold."""
    _project(project)
    follow(project)
    contracts = next(text for kind, text in FENCE.findall(GUIDE) if kind == "sh" and text.startswith("make schemas"))
    assert contracts.strip() == "make schemas openapi format lint"
    *writing, checking = contracts.split()
    run(project, *writing, "--old-file=env")
    tests = ".venv/bin/python", "-m", "pytest", "-q", "-p", "no:randomly", *CHECKS
    with ThreadPoolExecutor() as side_by_side:
        list(side_by_side.map(lambda command: run(project, *command), [("make", checking, "--old-file=env"), tests]))
