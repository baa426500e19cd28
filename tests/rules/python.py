"""Rules of Python files: each takes a path and a text and answers what is wrong, a line each."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

DOORS = ("main.py", "api.py", "reactions.py", "workers.py")


@dataclass(frozen=True)
class Place:
    """What may be used only below some paths, with the reason."""

    names: tuple[str, ...]
    where: tuple[str, ...]
    reason: str

    def covers(self, name: str) -> bool:
        return any(name == n or name.startswith(f"{n}.") for n in self.names)

    def allows(self, path: PurePath) -> bool:
        return any(path.match(w) or str(path).startswith(w) for w in self.where)


PLACES = (
    Place(("fastapi", "starlette"), ("services/*/api.py", "shared/", "deploy/", "tests/"), "HTTP comes in through api.py"),
    Place(("faststream", "aiokafka"), ("shared/", "deploy/", "services/agent/", "tests/"), "the kit speaks to Kafka, authors write rows"),
    Place(
        ("confluent_kafka",),
        ("shared/", "deploy/", "services/agent/", "services/provisioning/kafka.py", "tests/"),
        "the kit speaks to Kafka (provisioning makes tenants' topics and rights there)",
    ),
    Place(("asyncpg",), ("shared/", "deploy/", "services/agent/", "tests/"), "authors see a Tx, never a connection"),
    Place(
        ("os.environ", "os.environb", "os.getenv"),
        ("shared/settings.py", "services/*/settings.py", "deploy/", "tests/"),
        "the environment is read in one settings module (deploy/ makes environments)",
    ),
    Place(
        ("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today", "uuid.uuid1", "uuid.uuid4"),
        ("shared/", "deploy/", "tests/", "schemas/"),
        "the database keeps time and makes ids",
    ),
    Place(
        ("time.time", "time.time_ns"),
        ("shared/", "deploy/", "tests/", "services/agent/"),
        "the database keeps time (the agent has none of ours beside it)",
    ),
)


def names_out_of_place(path: PurePath, text: str) -> Iterator[str]:
    """Libraries, the environment, clocks and ids are used where they belong."""
    for line, name in _used(ast.parse(text)):
        for place in PLACES:
            if place.covers(name) and not place.allows(path):
                yield f"{path}:{line}: {name} is used here: {place.reason}"


def _used(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every imported name and every dotted one, with what it was imported as resolved."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        for local, name in _imported(node):
            known[local] = name
            yield node.lineno, name  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (dotted := _dotted(node)):
            first, _, rest = dotted.partition(".")
            if first in known:
                yield node.lineno, f"{known[first]}.{rest}"


def _imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(local name, full name) of each name that an import statement brings."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield (alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    inner = _dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inner}.{node.attr}" if inner and isinstance(node, ast.Attribute) else ""


_SQL = re.compile(
    r"\s*(SELECT\s+\S|INSERT\s+INTO\s|UPDATE\s+\S+\s+(\w+\s+)?SET\s|DELETE\s+FROM\s|TRUNCATE\s|(CREATE|ALTER|DROP)\s+(TABLE|INDEX|POLICY|ROLE|DATABASE|VIEW)\s"
    r"|WITH\s+\w+\s+AS\s*\(|SET\s+LOCAL\s|LOCK\s+TABLE\s)",
)


def sql_in_a_door(path: PurePath, text: str) -> Iterator[str]:
    """SQL stands in noun modules, beside the rule it belongs to."""
    if path.parts[0] != "services" or path.name not in DOORS or "agent" in path.parts:
        return
    tree = ast.parse(text)
    prose = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose and _SQL.match(node.value):
            yield f"{path}:{node.lineno}: SQL in a door; put it into a noun module"


_NOQA = re.compile(r"#\s*noqa\b(?P<codes>:\s*[A-Z]+\d+(\s*,\s*[A-Z]+\d+)*)?(?P<reason>\s+--?\s+\S.*)?", re.IGNORECASE)
_IGNORE = re.compile(r"#\s*type:\s*ignore(?P<codes>\[[a-z\-, ]+\])?")


def silent_exceptions(path: PurePath, text: str) -> Iterator[str]:
    """An exception to lint names its code and its reason; one to the types names its code."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        if (noqa := _NOQA.search(token.string)) and not (noqa["codes"] and noqa["reason"]):
            yield f"{path}:{line}: write '# noqa: <code> - <reason>'"
        if (ignore := _IGNORE.search(token.string)) and not ignore["codes"]:
            yield f"{path}:{line}: write '# type: ignore[<code>]'"
