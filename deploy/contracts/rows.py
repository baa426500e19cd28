"""The published models: what ``schemas`` holds."""

import pkgutil
from importlib import import_module

from pydantic import BaseModel

import schemas
from schemas import feed
from schemas.change import ChangeRecord
from shared.rows import Row

FEED: tuple[type[BaseModel], ...] = (feed.OrganizationResource, feed.DatabaseResource)
ASSIGNMENTS: tuple[type[BaseModel], ...] = (feed.Assignment, feed.Login)
REPORTS: tuple[type[BaseModel], ...] = (feed.Report, feed.Hello)
DATA_PLANE = {
    **{f"feed.{m.model_fields['kind'].default}": m for m in FEED},
    **{f"assignments.{m.model_fields['kind'].default}": m for m in ASSIGNMENTS},
    **{f"reports.{m.model_fields['kind'].default}": m for m in REPORTS},
}
"""What travels between provisioning and the agents, by topic and kind."""


def published_rows() -> list[type[Row]]:
    """Every Row class of ``schemas``, by table."""
    found = []
    for module in pkgutil.iter_modules(schemas.__path__, "schemas."):
        members = vars(import_module(module.name)).values()
        found += [m for m in members if isinstance(m, type) and issubclass(m, Row) and m is not Row and m.__module__ == module.name]
    return sorted(found, key=lambda row: row.table)


def streams_of(row: type[Row]) -> tuple[str, ...]:
    return (row.stream,) if isinstance(row.stream, str) else row.stream


def contracts() -> dict[str, type[BaseModel]]:
    """Every model that is a promise to readers, by the name of its locked schema."""
    return {"change": ChangeRecord, **{r.table: r for r in published_rows()}, **DATA_PLANE}
