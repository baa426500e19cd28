"""Doors that every service has for operators."""

from fastapi import Request

from shared import lag
from shared.http.callers import Operator
from shared.http.routing import new_router
from shared.http.unit import Unit
from shared.lag import Lag
from shared.settings import settings

router = new_router(tags=["operators"])


@router.get("/lag")
async def get_lag(request: Request, caller: Operator) -> Lag:  # noqa: ARG001 - a permission is a parameter's type
    """How far behind this service's part of the bus is: slot, change log, topics, positions, heads, each with its age."""
    unit = Unit.of(request)
    found = await lag.of_database(await unit.tx())
    await unit.release()
    return found.model_copy(update={"topics": await lag.of_topics(settings(), found.service)})
