"""The OpenAPI document of each service, as its ``/openapi.json`` answers it."""

from pathlib import Path
from typing import Any

from deploy.contracts import ROOT, as_json, part, services


def document(service: str) -> dict[str, Any]:
    openapi: dict[str, Any] = part(service, "main").service.app.openapi()
    return openapi


def path_of(service: str) -> Path:
    return ROOT / "services" / service / "openapi.json"


def files() -> dict[Path, str]:
    return {path_of(s): as_json(document(s)) for s in services() if part(s, "main")}
