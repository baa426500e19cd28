"""The rules of the house hold, and each catches what it is there for."""

from collections.abc import Callable, Iterable
from pathlib import PurePath

import pytest

from tests.rules.files import ROOT, SERVICES, all_files, texts
from tests.rules.migrations import open_tables
from tests.rules.python import names_out_of_place, silent_exceptions, sql_in_a_door
from tests.rules.texts import MOST_LINES, forbidden_words, misshapen, too_long

Rule = Callable[[PurePath, str], Iterable[str]]

PYTHON: tuple[Rule, ...] = (names_out_of_place, sql_in_a_door, silent_exceptions)
TEXT: tuple[Rule, ...] = (forbidden_words, too_long)


def _none(findings: Iterable[str]) -> None:
    found = list(findings)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("rule", PYTHON, ids=lambda r: r.__name__)
def test_python_files_keep_the_rule(rule: Rule) -> None:
    _none(finding for path, text in texts(".py") for finding in rule(path, text))


@pytest.mark.parametrize("rule", TEXT, ids=lambda r: r.__name__)
def test_all_files_keep_the_rule(rule: Rule) -> None:
    _none(finding for path, text in texts() for finding in rule(path, text))


def _migrations(folder: str) -> str:
    return "\n".join(f.read_text() for f in sorted((ROOT / folder).glob("*.sql")))


@pytest.mark.parametrize("folder", ["shared/migrations", *(f"services/{s}/migrations" for s in SERVICES if s != "agent")])
def test_every_table_says_who_may_see_its_rows(folder: str) -> None:
    _none(open_tables(PurePath(folder), _migrations(folder)))


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_the_same_layout(service: str) -> None:
    home = ROOT / "services" / service
    files = [f.relative_to(f"services/{service}") for f in all_files() if f.is_relative_to(f"services/{service}")]

    def text(name: str) -> str:
        return (home / name).read_text() if (home / name).exists() else ""

    _none(misshapen(service, files, text("main.py"), text("README.md")))


API, NOUN, WORKERS = "services/org/api.py", "services/org/members.py", "services/org/workers.py"

BAD: list[tuple[Rule, str, str]] = [
    (names_out_of_place, NOUN, "from fastapi import Request"),
    (names_out_of_place, NOUN, "import starlette.requests"),
    (names_out_of_place, API, "import asyncpg"),
    (names_out_of_place, WORKERS, "from aiokafka import AIOKafkaProducer"),
    (names_out_of_place, "schemas/org.py", "import faststream.kafka as k"),
    (names_out_of_place, NOUN, "import os\nhere = os.environ['HOME']"),
    (names_out_of_place, "shared/tx.py", "from os import getenv\ngetenv('HOME')"),
    (names_out_of_place, NOUN, "from datetime import datetime as d, UTC\nd.now(UTC)"),
    (names_out_of_place, NOUN, "import datetime\ndatetime.datetime.utcnow()"),
    (names_out_of_place, "services/agent/plan.py", "import uuid\nuuid.uuid4()"),
    (names_out_of_place, NOUN, "from uuid import UUID, uuid4"),
    (names_out_of_place, NOUN, "import time\ntime.time()"),
    (sql_in_a_door, API, "await tx.value('SELECT 1')"),
    (sql_in_a_door, WORKERS, "async def work(tx):\n    await tx.run('''\n  UPDATE rows SET state = $1''', 'x')"),
    (sql_in_a_door, "services/org/reactions.py", "f'INSERT INTO {table} VALUES ($1)'"),
    (sql_in_a_door, "services/org/main.py", "x('WITH a AS (SELECT 1) SELECT * FROM a')"),
    (silent_exceptions, NOUN, "x = 1  # noqa"),
    (silent_exceptions, NOUN, "x = 1  # noqa: S101"),
    (silent_exceptions, NOUN, "x = y  # type: ignore"),
    (forbidden_words, "README.md", "TODO: say more"),
    (forbidden_words, "Makefile", "cd /root/project"),
    (too_long, NOUN, "x = 1\n" * (MOST_LINES + 1)),
    (open_tables, "services/org/migrations", "CREATE TABLE things (id uuid);"),
    (open_tables, "services/org/migrations", "CREATE TABLE IF NOT EXISTS a (id uuid);\nSELECT tenant_table('b');"),
    (open_tables, "services/org/migrations", "CREATE TABLE a (id uuid);\n-- SELECT tenant_table('a');"),
    (open_tables, "services/org/migrations", "CREATE FUNCTION look(table_name text) RETURNS void AS $$ SELECT 1 $$;\nCREATE TABLE a (id uuid);\nSELECT look('a');"),
]  # fmt: skip

GOOD: list[tuple[Rule, str, str]] = [
    (names_out_of_place, API, "from fastapi import Request"),
    (names_out_of_place, "shared/settings.py", "import os\nos.environ['HOME']"),
    (names_out_of_place, NOUN, "from datetime import datetime\nat: datetime = row.now"),
    (sql_in_a_door, NOUN, "await tx.value('SELECT 1')"),
    (sql_in_a_door, API, "'''Select a plan, update the row, delete from the list.'''\nx('Update your address')"),
    (silent_exceptions, NOUN, "x = 1  # noqa: S101, B008 - it is checked above"),
    (silent_exceptions, NOUN, "x = y  # type: ignore[arg-type]"),
    (forbidden_words, NOUN, "GET /home and /docs, in ${HOME}/work/x"),
    (too_long, NOUN, "x = 1\n" * MOST_LINES),
    (open_tables, "services/org/migrations", "CREATE TABLE a (id uuid);\nSELECT tenant_table('a');\nCREATE TABLE a_1 PARTITION OF a DEFAULT;"),
    (
        open_tables,
        "services/org/migrations",
        "CREATE FUNCTION shut(table_name text) RETURNS void AS $$ ALTER TABLE x FORCE ROW LEVEL SECURITY $$;\nCREATE TABLE a (id uuid);\nSELECT shut('a');",
    ),
    (open_tables, "shared/migrations", "CREATE TABLE a (i int);\nSELECT shared_table(t, 'x') FROM unnest('{a,\n b}'::text[]) t;"),
]  # fmt: skip


def _cases(cases: list[tuple[Rule, str, str]]) -> list[object]:
    return [pytest.param(*c, id=f"{c[0].__name__}-{i}") for i, c in enumerate(cases)]


@pytest.mark.parametrize(("rule", "path", "text"), _cases(BAD))
def test_a_bad_example_is_caught(rule: Rule, path: str, text: str) -> None:
    assert list(rule(PurePath(path), text))


@pytest.mark.parametrize(("rule", "path", "text"), _cases(GOOD))
def test_a_good_example_passes(rule: Rule, path: str, text: str) -> None:
    assert not list(rule(PurePath(path), text))


def test_a_service_without_its_parts_is_caught() -> None:
    found = list(misshapen("org", [PurePath("main.py"), PurePath("org.py")], "x\n" * 20, "# Org"))
    assert len(found) == 4 + 1 + 4
