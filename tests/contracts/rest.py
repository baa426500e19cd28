"""Every door of every service, as its OpenAPI document lists them: for tests that walk them all."""

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from deploy.contracts import services
from deploy.contracts.openapi import document
from tests.mesh import Door

_OPERATIONS = ("/healthz", "/readyz", "/metrics")


@dataclass(frozen=True)
class Operation:
    """One method of one path of one service."""

    service: str
    method: str
    path: str
    secured: bool
    body: dict[str, Any] | None
    answers: dict[str, Any]
    for_operators: bool
    open_while_suspended: bool

    def __str__(self) -> str:
        return f"{self.service} {self.method} {self.path}"

    def at(self, **ids: str) -> str:
        """The path with these ids, and fresh ones where none is given."""
        return re.sub(r"\{(\w+)\}", lambda m: ids.get(m[1]) or str(uuid.uuid4()), self.path)

    def call(self, who: Door, json: Any = None, **ids: str) -> httpx.Response:
        if json is None and self.method in ("POST", "PATCH") and self.body:
            json = {}
        return who.call(self.method, self.service, self.at(**ids), json)

    @property
    def is_list(self) -> bool:
        schema = self.answers.get("200", {}).get("content", {}).get("application/json", {}).get("schema", {})
        return "Page_" in schema.get("$ref", "")


def _operations() -> Iterator[Operation]:
    for service in services():
        openapi = document(service)
        for path, item in openapi["paths"].items():
            for method, operation in item.items():
                if path not in _OPERATIONS:
                    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
                    yield Operation(
                        service, method.upper(), path, bool(operation.get("security")), body, operation["responses"],
                        for_operators="operators" in operation.get("tags", ()), open_while_suspended=bool(operation.get("x-while-suspended")),
                    )  # fmt: skip


OPERATIONS = tuple(_operations())
