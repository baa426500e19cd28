"""Published rows equal their models: what a table sends is what ``schemas`` promises."""

import re
from typing import Any, get_args

import pytest

from deploy.contracts.rows import published_rows, streams_of
from shared.migrations import KIT
from shared.rows import Row
from tests.mesh import TestMesh

_PUBLISHED_BY_THE_KIT = set(re.findall(r"^SELECT publish_table\('(\w+)'", "".join(f.read_text() for f in KIT.glob("*.sql")), re.MULTILINE))

# What a column may be, by the JSON type and format of the field that reads it.
FITTING = {
    ("string", "uuid"): {"uuid"},
    ("string", "date-time"): {"timestamptz"},
    ("string", None): {"text", "varchar", "interval"},
    ("integer", None): {"int2", "int4", "int8"},
    ("number", None): {"numeric", "float4", "float8"},
    ("boolean", None): {"bool"},
    ("object", None): {"jsonb", "json"},
    ("array", None): {"jsonb", "json", "_text", "_uuid", "_int4", "_int8"},
}

_COLUMNS = """
SELECT a.attname AS name, t.typname AS type, a.attnotnull AS filled FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped"""
_CHECKS = "SELECT pg_get_constraintdef(oid) AS text FROM pg_constraint WHERE conrelid = to_regclass($1) AND contype = 'c'"
_KEY = """
SELECT a.attname AS name FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
WHERE i.indrelid = to_regclass($1) AND i.indisprimary"""


def _type(field: dict[str, Any], definitions: dict[str, Any]) -> tuple[tuple[str, str | None], bool]:
    """The JSON type and format of a field's schema, and whether it may be null."""
    if "$ref" in field:
        return _type(definitions[field["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in field:
        some = [f for f in field["anyOf"] if f.get("type") != "null"]
        return _type(some[0], definitions)[0], len(some) < len(field["anyOf"])
    return (field["type"], field.get("format")), False


def _values(annotation: Any) -> set[str] | None:
    """What a ``Literal`` lists, also beside None."""
    arguments = get_args(annotation)
    texts = {a for a in arguments if isinstance(a, str)}
    return texts or next((v for a in arguments if (v := _values(a))), None)


def _allowed(checks: list[str], column: str) -> set[str] | None:
    """What a CHECK (column IN (…)) lists."""
    for text in checks:
        if found := re.fullmatch(rf"CHECK \(\({column} = ANY \(ARRAY\[(.*)\]\)\)\)", text):
            return set(re.findall(r"'([^']*)'::text", found[1]))
    return None


def mismatches(row: type[Row], columns: list[dict[str, Any]], private: list[str], checks: list[str]) -> list[str]:
    """What of the model the table does not send, or sends as something else."""
    found, there = [], {c["name"]: c for c in columns}
    schema = row.model_json_schema()
    for name, field in schema["properties"].items():
        if name not in there or name in private:
            found.append(f"{name}: {'is private' if name in there else 'is no column'}")
            continue
        kind, nullable = _type(field, schema.get("$defs", {}))
        if there[name]["type"] not in FITTING.get(kind, set()):
            found.append(f"{name}: {there[name]['type']} does not fit {kind}")
        if not there[name]["filled"] and not nullable:
            found.append(f"{name}: the column may be null, the field may not")
        allowed, values = _allowed(checks, name), _values(row.model_fields[name].annotation)
        if allowed is not None and allowed != values:
            found.append(f"{name}: the table allows {sorted(allowed)}, the model {sorted(values or ())}")
    return found


def _catalog(mesh: TestMesh, service: str) -> dict[str, dict[str, Any]]:
    return {r["name"]: r for r in mesh.rows(f'SELECT name, kind, key, private FROM "{service}".published')}


@pytest.mark.parametrize("row", published_rows(), ids=lambda r: r.table)
def test_a_published_row_equals_its_model(mesh: TestMesh, row: type[Row]) -> None:
    service, _, table = row.table.partition(".")
    catalog = _catalog(mesh, service)
    assert table in catalog, f"{row.table} is not published"
    name = f'"{service}"."{table}"'
    columns, checks = mesh.rows(_COLUMNS, name), [r["text"] for r in mesh.rows(_CHECKS, name)]
    assert not mismatches(row, columns, catalog[table]["private"], checks)


@pytest.mark.parametrize("row", published_rows(), ids=lambda r: r.table)
def test_a_published_row_travels_on_the_stream_and_under_the_key_it_says(mesh: TestMesh, row: type[Row]) -> None:
    service, _, table = row.table.partition(".")
    entry = _catalog(mesh, service)[table]
    assert (entry["kind"] == "row") == (len(streams_of(row)) > 1)
    assert entry["kind"] == "row" or streams_of(row) == (entry["kind"],)
    primary = {r["name"] for r in mesh.rows(_KEY, f'"{service}"."{table}"')}
    assert set(row.key) <= primary
    assert primary - set(row.key) <= {entry["key"]}, "the rest of the primary key is the stream"


def test_everything_that_is_published_has_a_model(mesh: TestMesh) -> None:
    known = {row.table for row in published_rows()}
    sent = {f"{s}.{t}" for s in mesh.urls for t in _catalog(mesh, s) if t not in _PUBLISHED_BY_THE_KIT}
    assert sent == known


class Example(Row):
    """What the bad examples are held against."""

    table = "example.things"
    id: str
    count: int
    note: str | None


GOOD = [{"name": "id", "type": "text", "filled": True}, {"name": "count", "type": "int4", "filled": True}, {"name": "note", "type": "text", "filled": False}]


@pytest.mark.parametrize(
    ("columns", "private"),
    [
        (GOOD[:2], []),
        (GOOD, ["note"]),
        ([GOOD[0] | {"type": "bytea"}, *GOOD[1:]], []),
        ([GOOD[0], GOOD[1] | {"type": "text"}, GOOD[2]], []),
        ([GOOD[0] | {"filled": False}, *GOOD[1:]], []),
    ],
    ids=["missing", "private", "unknown type", "other type", "may be null"],
)
def test_a_row_that_differs_from_its_model_is_caught(columns: list[dict[str, Any]], private: list[str]) -> None:
    assert not mismatches(Example, GOOD, [], [])
    assert len(mismatches(Example, columns, private, [])) == 1
