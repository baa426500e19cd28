"""The OpenAPI document of each service: checked in, valid, and clear about every door."""

import copy
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from openapi_spec_validator import validate

from deploy.contracts import as_json, services
from deploy.contracts.openapi import document, path_of
from tests.mesh import HTTP, TestMesh

OPEN = {
    "user": {
        "POST /users", "POST /users/verify", "POST /verifications", "POST /sessions", "POST /sessions/refresh",
        "POST /password-resets", "POST /password-resets/confirm", "GET /.well-known/jwks.json",
    },
    "billing": {"GET /plans"},
}  # fmt: skip
"""Doors for callers without an identity."""
_OPERATIONS = ("/healthz", "/readyz", "/metrics")


def _doors(openapi: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in openapi["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


@pytest.mark.parametrize("service", services())
def test_the_checked_in_document_is_the_services_own(service: str) -> None:
    assert path_of(service).read_text() == as_json(document(service)), "write it with: make openapi"


@pytest.mark.parametrize("service", services())
def test_the_running_service_answers_the_checked_in_document(service: str, mesh: TestMesh) -> None:
    assert HTTP.get(mesh.urls[service] + "/openapi.json").json() == orjson.loads(path_of(service).read_bytes())


@pytest.mark.parametrize("service", services())
def test_the_document_is_valid(service: str) -> None:
    openapi = copy.deepcopy(document(service))
    for _, _, operation in _doors(openapi):
        for answer in operation["responses"].values():
            for body in answer.get("content", {}).values():
                body.pop("itemSchema", None)  # of event streams: FastAPI says it in the words of OpenAPI 3.2, which readers of 3.1 skip
    validate(openapi)


@pytest.mark.parametrize("service", services())
def test_every_door_says_what_it_does(service: str) -> None:
    silent = [f"{m} {p}" for m, p, operation in _doors(document(service)) if not operation.get("description") or not operation.get("summary")]
    assert not silent


@pytest.mark.parametrize("service", services())
def test_every_door_has_a_name_of_its_own(service: str) -> None:
    names = [operation["operationId"] for _, _, operation in _doors(document(service))]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("service", services())
def test_every_door_says_whether_it_wants_an_identity(service: str) -> None:
    openapi = document(service)
    schemes = openapi.get("components", {}).get("securitySchemes", {})
    assert all(s["type"] == "http" and s["scheme"] == "bearer" and s["description"] for s in schemes.values())
    for method, path, operation in _doors(openapi):
        is_open = path in _OPERATIONS or f"{method} {path}" in OPEN.get(service, ())
        assert bool(operation.get("security")) != is_open, f"{method} {path}"


@pytest.mark.parametrize("service", services())
def test_every_door_says_what_it_answers_when_it_refuses(service: str) -> None:
    for method, path, operation in _doors(document(service)):
        if path not in _OPERATIONS:
            refusals = operation["responses"].get("4XX", {}).get("content", {})
            assert "application/problem+json" in refusals, f"{method} {path}"
