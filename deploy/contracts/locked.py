"""The JSON Schemas that are checked in: a published model changes additively, or not at all."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from deploy.contracts import ROOT, as_json
from deploy.contracts.rows import contracts, streams_of
from shared.rows import Row

FOLDER = ROOT / "schemas" / "locked"
Schema = dict[str, Any]


def schema_of(name: str, model: type[BaseModel]) -> Schema:
    """What a reader may rely on."""
    schema = {"$schema": GenerateJsonSchema.schema_dialect, "$id": f"urn:saas-mesh:{name}", **model.model_json_schema()}
    if issubclass(model, Row):
        schema |= {"x-key": list(model.key), "x-stream": list(streams_of(model))}
    return schema


def files() -> dict[Path, str]:
    return {FOLDER / f"{name}.json": as_json(schema_of(name, model)) for name, model in contracts().items()}


def promised() -> dict[str, Schema]:
    """The locked schemas of the newest release, or of the last commit while there is no release."""
    tag = _git("describe", "--tags", "--abbrev=0", "--match", "v*") or "HEAD"
    names = _git("ls-tree", "-r", "--name-only", tag, "schemas/locked").splitlines()
    return {Path(n).stem: orjson.loads(_git("show", f"{tag}:{n}")) for n in names}


def _git(*arguments: str) -> str:
    """What git says, or nothing outside of a repository."""
    done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def breaks(old: Schema, new: Schema) -> list[str]:
    """What a reader that was written for ``old`` would trip over in ``new``, or a reader of ``new`` in records as old as ``old``.

    Free to change: descriptions and titles, new properties that are not required, new values of an enumeration (a reader
    that switches over a state has a branch for those it does not know).
    """
    return [f"{where or 'the whole'}: {what}" for where, what in _breaks(_resolved(old, old), _resolved(new, new), "")]


def _breaks(old: Any, new: Any, where: str) -> Iterator[tuple[str, str]]:
    if not isinstance(old, dict) or not isinstance(new, dict):
        if old != new:
            yield where, f"{old!r} became {new!r}"
        return
    yield from _properties(old, new, where)
    yield from _values(old, new, where)
    for word in sorted((old.keys() | new.keys()) - {"properties", "required", "enum", "const", "description", "title", "default", "$defs", "$id"}):
        if word in ("anyOf", "oneOf"):
            yield from _choices(old.get(word, []), new.get(word, []), f"{where}/{word}")
        else:
            yield from _breaks(old.get(word), new.get(word), f"{where}/{word}")


def _properties(old: Schema, new: Schema, where: str) -> Iterator[tuple[str, str]]:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in before.keys() - after.keys():
        yield f"{where}/{name}", "removed"
    for name in sorted(before.keys() & after.keys()):
        yield from _breaks(before[name], after[name], f"{where}/{name}")
    for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
        yield f"{where}/{name}", "is required, and older records do not have it"
    for name in sorted((set(old.get("required", ())) - set(new.get("required", ()))) & after.keys()):
        yield f"{where}/{name}", "was always there and may be missing now"


def _values(old: Schema, new: Schema, where: str) -> Iterator[tuple[str, str]]:
    before, after = _enumerated(old), _enumerated(new)
    if (before is None) != (after is None):
        yield where, "was one of some values and is not, or the other way round"
    elif before is not None and after is not None and (gone := before - after):
        yield where, f"cannot be {', '.join(sorted(gone))} any more"


def _enumerated(schema: Schema) -> set[str] | None:
    if "const" in schema:
        return {str(schema["const"])}
    return {str(v) for v in schema["enum"]} if "enum" in schema else None


def _choices(old: list[Schema], new: list[Schema], where: str) -> Iterator[tuple[str, str]]:
    if len(old) != len(new):
        yield where, "has other choices"
        return
    for i, (a, b) in enumerate(zip(old, new, strict=True)):
        yield from _breaks(a, b, f"{where}/{i}")


def _resolved(node: Any, root: Schema) -> Any:
    """The schema with its local references replaced, so that a renamed class is no change. Ours are not recursive."""
    if isinstance(node, list):
        return [_resolved(n, root) for n in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = root["$defs"][node["$ref"].rpartition("/")[2]]
        return _resolved(target, root) | {k: v for k, v in node.items() if k != "$ref"}
    return {k: v if k in ("enum", "required") else _resolved(v, root) for k, v in node.items() if k != "$defs"}
