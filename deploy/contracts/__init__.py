"""What the mesh promises to others, written from its code: locked schemas, OpenAPI, AsyncAPI, catalogs."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def as_json(document: Any) -> str:
    """The one way a document is written, so that two of them can be compared as texts."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def services() -> list[str]:
    """The services with a REST API and tables of their own, by their folders."""
    return sorted(p.parent.name for p in (ROOT / "services").glob("*/api.py"))


def part(service: str, name: str) -> Any:
    """A module of a service, or None when it has none of this name."""
    if not (ROOT / "services" / service / f"{name}.py").exists():
        return None
    return import_module(f"services.{service}.{name}")
