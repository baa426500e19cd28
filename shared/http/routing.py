"""What ``api.py`` needs: a router whose doors run in the request's transaction, strict bodies, and answers that name their flow."""

from typing import Any, Self
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, field_validator

from shared.http.unit import UnitRoute
from shared.tx import Tx

_PROBLEM = {"description": "A problem (RFC 9457)", "content": {"application/problem+json": {}}}


def new_router(**kwargs: Any) -> APIRouter:
    """A router for a service's doors. Every door runs in one transaction that commits before the answer leaves."""
    return APIRouter(route_class=UnitRoute, responses={"4XX": _PROBLEM, "503": _PROBLEM}, **kwargs)


class Body(BaseModel):
    """A request body: unknown fields are refused, text is trimmed."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, str_max_length=10_000)

    @field_validator("*", mode="before")
    @classmethod
    def _no_null_character(cls, value: Any) -> Any:
        """PostgreSQL stores no U+0000 in text."""
        if isinstance(value, str) and "\x00" in value:
            raise ValueError("must not hold the character U+0000")
        return value


class View(BaseModel):
    """What a door shows of a row."""

    model_config = ConfigDict(from_attributes=True, extra="ignore")


class Flowing(View):
    """Mixed into a view: the answer of a door that starts or continues a flow (202)."""

    flow_id: UUID

    @classmethod
    def of(cls, tx: Tx, row: BaseModel | None = None) -> Self:
        """The row's fields and the flow of the transaction."""
        return cls.model_validate((row.model_dump() if row else {}) | {"flow_id": tx.context.flow_id})
