"""The AsyncAPI document: every topic of the mesh with its key and its messages."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from deploy.contracts import services
from deploy.contracts.rows import ASSIGNMENTS, FEED, REPORTS, contracts, published_rows, streams_of
from schemas.change import ChangeRecord
from shared.rows import Row

_TEMPLATE = "#/components/schemas/{model}"
_DIALECT = "application/schema+json;version=draft-2020-12"
Document = dict[str, Any]


def document() -> Document:
    """AsyncAPI 3.0, seen from the mesh: what it sends, and the reports of the agents that it receives."""
    references, definitions = _schemas()
    messages: Document = {}
    channels = {f"{s}.changes": _changes(s, references, messages) for s in services()}
    channels |= _data_planes(references, messages)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "SaaS Mesh: topics",
            "version": "1",
            "description": "All values are JSON text. Published rows change additively only: a reader ignores fields it does not know.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{host}:{port}",
                "pathname": "",
                "protocol": "kafka-secure",
                "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "9092"}},
                "security": [{"$ref": "#/components/securitySchemes/scram"}],
            }
        },
        "channels": channels,
        "operations": {_id(name): _operation(name, channel) for name, channel in channels.items()},
        "components": {
            "securitySchemes": {"scram": {"type": "scramSha256", "description": "A user of its own for every service, agent and reader"}},
            "messages": messages,
            "schemas": definitions,
        },
    }


def _schemas() -> tuple[dict[type[BaseModel], Document], Document]:
    models = list(dict.fromkeys(contracts().values()))
    references, whole = models_json_schema([(m, "validation") for m in models], ref_template=_TEMPLATE)
    return {m: references[m, "validation"] for m in models}, whole["$defs"]


def _id(channel: str) -> str:
    return channel.replace("{", "").replace("}", "").replace(".", "_")


def _operation(name: str, channel: Document) -> Document:
    action = "receive" if name.endswith(".reports") else "send"
    return {"action": action, "channel": {"$ref": f"#/channels/{name}"}, "summary": channel["title"]}


def _channel(name: str, title: str, description: str, key: str, messages: Iterable[str], parameters: dict[str, str]) -> Document:
    channel: Document = {
        "address": name,
        "title": title,
        "description": description,
        "messages": {m: {"$ref": f"#/components/messages/{m}"} for m in messages},
        "bindings": {"kafka": {"topic": name, "bindingVersion": "0.5.0"}},
        "x-key": key,
    }
    if parameters:
        channel["parameters"] = {n: {"description": d} for n, d in parameters.items()}
    return channel


def _message(name: str, title: str, summary: str, payload: Document, key: str) -> Document:
    return {
        "name": name,
        "title": title,
        "summary": summary,
        "contentType": "application/json",
        "payload": {"schemaFormat": _DIALECT, "schema": payload},
        "bindings": {"kafka": {"key": {"type": "string", "description": key}, "bindingVersion": "0.5.0"}},
    }


def _first_sentence(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or model.__name__).split("\n\n")[0].split())


def _changes(service: str, references: dict[type[BaseModel], Document], messages: Document) -> Document:
    """One message for each published table: the change record whose ``after`` is the row."""
    rows = [r for r in published_rows() if r.owner() == service]
    for row in rows:
        key = " or ".join(_stream_text(kind) for kind in streams_of(row))
        messages[row.table] = _message(row.table, f"{row.__name__} changed", _first_sentence(row), _change_of(row, references), key)
    mesh = f"{service}.own"
    own = {"allOf": [references[ChangeRecord]], "properties": {"table": {"not": {"enum": [r.table.partition(".")[2] for r in rows]}}}}
    messages[mesh] = _message(mesh, "The mesh's own record", "How far streams have come, restatements, what is parked", own, "The stream")
    return _channel(
        f"{service}.changes",
        f"Every committed change of what the {service} service publishes",
        "In order and numbered within each stream; kept for seven days.",
        "The stream",
        [*(r.table for r in rows), mesh],
        {},
    )


def _stream_text(kind: str) -> str:
    return f"`{kind}`" if kind.startswith("global:") else f"`{kind}:<uuid>`"


def _change_of(row: type[Row], references: dict[type[BaseModel], Document]) -> Document:
    return {
        "allOf": [references[ChangeRecord]],
        "properties": {"table": {"const": row.table.partition(".")[2]}, "after": {"anyOf": [references[row], {"type": "null"}]}},
    }


_PLANE = {"data_plane": "The data plane's id"}


def _data_planes(references: dict[type[BaseModel], Document], messages: Document) -> Document:
    def named(topic: str, models: tuple[type[BaseModel], ...], key: str) -> list[str]:
        names = []
        for model in models:
            name = f"{topic}.{model.model_fields['kind'].default}"
            messages[name] = _message(name, model.__name__, _first_sentence(model), references[model], key)
            names.append(name)
        return names

    resource = "`<org_id>/<resource id>`; a tombstone removes the resource"
    return {
        "tenant.{org_id}.feed": _channel(
            "tenant.{org_id}.feed",
            "What a tenant should have in its data plane",
            "Compacted: the newest value of a key is the whole truth about it. The tenant's own consumers may read it.",
            resource, named("feed", FEED, resource), {"org_id": "The organization's id"},
        ),
        "dataplane.{data_plane}.assignments": _channel(
            "dataplane.{data_plane}.assignments",
            "Which tenants a data plane holds, and their logins",
            "Compacted; for the data plane's agent alone.",
            resource, named("assignments", ASSIGNMENTS, resource), _PLANE,
        ),
        "dataplane.{data_plane}.reports": _channel(
            "dataplane.{data_plane}.reports",
            "What an agent saw",
            "Written by the data plane's agent alone.",
            "`<org_id>` or `hello`", named("reports", REPORTS, "`<org_id>` or `hello`"), _PLANE,
        ),
    }  # fmt: skip
