"""The AsyncAPI document: every topic, its key, its messages, from the code."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from deploy.contracts import services
from deploy.contracts.asyncapi import document
from deploy.contracts.rows import published_rows
from tests.mesh import TestMesh


@pytest.fixture(scope="module")
def asyncapi() -> dict[str, Any]:
    return document()


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _at(asyncapi: dict[str, Any], reference: str) -> Any:
    """What a local reference points to. Raises KeyError when there is nothing."""
    node: Any = asyncapi
    path = reference.removeprefix("#/")
    for part in path.split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def test_it_has_the_form_of_asyncapi_3(asyncapi: dict[str, Any]) -> None:
    assert ApplicationSchema.model_validate(asyncapi).asyncapi == "3.0.0"
    for reference in _references(asyncapi):
        assert _at(asyncapi, reference)
    for operation in asyncapi["operations"].values():
        assert operation["action"] in ("send", "receive")
        assert operation["channel"]["$ref"].startswith("#/channels/")


def test_every_topic_is_in_it(asyncapi: dict[str, Any]) -> None:
    planes = {"tenant.{org_id}.feed", "dataplane.{data_plane}.assignments", "dataplane.{data_plane}.reports"}
    assert asyncapi["channels"].keys() == {f"{s}.changes" for s in services()} | planes
    for address, channel in asyncapi["channels"].items():
        assert set(channel.get("parameters", {})) == {p.partition("}")[0] for p in address.split("{")[1:]}
        assert channel["messages"]


def test_every_published_table_is_a_message_of_its_services_topic(asyncapi: dict[str, Any]) -> None:
    for row in published_rows():
        assert row.table in asyncapi["channels"][f"{row.owner()}.changes"]["messages"]


def _payload(asyncapi: dict[str, Any], message: str) -> Draft202012Validator:
    registry: Registry[Any] = Registry().with_resource("urn:asyncapi", DRAFT202012.create_resource(asyncapi))
    whole = {"$ref": f"urn:asyncapi#/components/messages/{message}/payload/schema"}
    return Draft202012Validator(whole, registry=registry)


def test_every_payload_is_a_json_schema(asyncapi: dict[str, Any]) -> None:
    for message in asyncapi["components"]["messages"].values():
        Draft202012Validator.check_schema(message["payload"]["schema"])
    for schema in asyncapi["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_a_record_that_travelled_is_the_message_it_is_said_to_be(asyncapi: dict[str, Any], mesh: TestMesh) -> None:
    org_id = mesh.sign_up(organization="AsyncAPI").org_id
    rows = mesh.rows("SELECT payload::json ->> 'table' AS name, payload::jsonb AS record FROM org.changes WHERE stream = $1", f"org:{org_id}")
    assert {r["name"] for r in rows} >= {"organizations", "memberships"}
    for row in rows:
        _payload(asyncapi, f"org.{row['name']}").validate(orjson.loads(row["record"]))
        other = "org.invitations" if row["name"] != "invitations" else "org.organizations"
        assert not _payload(asyncapi, other).is_valid(orjson.loads(row["record"]))
