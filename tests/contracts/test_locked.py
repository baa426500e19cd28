"""Published models are locked as JSON Schemas, and change additively only."""

import copy
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from deploy.contracts.locked import FOLDER, breaks, files, promised, schema_of
from schemas.feed import Report
from schemas.org import Organization
from tests.mesh import TestMesh

Change = Callable[[dict[str, Any]], object]


def test_the_locked_schemas_are_those_of_the_models() -> None:
    written = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert written == {path.name: text for path, text in files().items()}, "write them with: make schemas"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda p: p.stem)
def test_a_locked_schema_is_a_json_schema(path: Any) -> None:
    Draft202012Validator.check_schema(orjson.loads(path.read_bytes()))


def test_nothing_that_was_promised_is_broken() -> None:
    now = {path.stem: orjson.loads(text) for path, text in files().items()}
    broken = [f"{name}: {what}" for name, old in promised().items() for what in (breaks(old, now[name]) if name in now else ["removed"])]
    assert not broken, "\n".join(broken)


def _organization() -> dict[str, Any]:
    return schema_of("org.organizations", Organization)


BREAKING: dict[str, Change] = {
    "a property is removed": lambda s: s["properties"].pop("reason"),
    "a property has another type": lambda s: s["properties"]["name"].update(type="integer"),
    "a property has another format": lambda s: s["properties"]["org_id"].pop("format"),
    "a property may be null now": lambda s: s["properties"].update(name={"anyOf": [{"type": "string"}, {"type": "null"}]}),
    "a property is always there now": lambda s: (s["properties"].update(age={"type": "integer"}), s["required"].append("age")),
    "a property may be missing now": lambda s: s["required"].remove("name"),
    "a value is gone": lambda s: s["properties"]["state"]["enum"].remove("suspended"),
    "a value inside a choice is gone": lambda s: s["properties"]["suspended_by"]["anyOf"][0]["enum"].remove("billing"),
    "text became one of some values": lambda s: s["properties"]["name"].update(enum=["a"]),
    "it travels on another stream": lambda s: s.update({"x-stream": ["user"]}),
    "it has another key": lambda s: s.update({"x-key": ["name"]}),
}
ADDITIVE: dict[str, Change] = {
    "nothing": lambda s: s,
    "an optional property": lambda s: s["properties"].update(age={"type": "integer", "default": 0}),
    "another value": lambda s: s["properties"]["state"]["enum"].append("frozen"),
    "other words": lambda s: (s.update(description="said better"), s["properties"]["name"].update(title="The name", description="said")),
}


@pytest.mark.parametrize("change", BREAKING.values(), ids=BREAKING.keys())
def test_a_breaking_change_is_refused(change: Change) -> None:
    new = copy.deepcopy(_organization())
    change(new)
    assert breaks(_organization(), new)


@pytest.mark.parametrize("change", ADDITIVE.values(), ids=ADDITIVE.keys())
def test_an_additive_change_is_free(change: Change) -> None:
    new = copy.deepcopy(_organization())
    change(new)
    assert not breaks(_organization(), new)


def test_a_change_deep_in_a_message_is_seen_and_a_renamed_class_is_none() -> None:
    old = schema_of("reports.report", Report)
    renamed = orjson.loads(orjson.dumps(old).replace(b"Observed", b"Seen"))
    assert not breaks(old, renamed | {"description": old["description"]})
    removed = copy.deepcopy(old)
    removed["$defs"]["Observed"]["properties"].pop("error")
    assert breaks(old, removed)


def test_every_record_that_was_written_fits_its_locked_schema(mesh: TestMesh) -> None:
    mesh.sign_up(organization="Locked").org_id  # noqa: B018 - waits until its organization is there
    validators = {path.stem: Draft202012Validator(orjson.loads(text)) for path, text in files().items()}
    seen = set()
    for service in mesh.urls:
        for row in mesh.rows(f'SELECT payload FROM "{service}".changes ORDER BY at DESC LIMIT 2000'):
            record = orjson.loads(row["payload"])
            validators["change"].validate(record)
            table = f"{service}.{record['table']}"
            if table in validators and record["after"] is not None:
                validators[table].validate(record["after"])
                seen.add(table)
    assert {"user.users", "org.organizations", "org.memberships"} <= seen
