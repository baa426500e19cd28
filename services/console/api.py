"""The console's doors."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from services.console import flows, history
from services.console.flows import Count, FlowSummary, FlowView
from services.console.folding import AT_REST, FINISHED, FlowState
from services.console.watching import watching
from shared.errors import NotFound
from shared.http.callers import Anyone, Caller, Member, Operator, OrgAdmin, TenantTx
from shared.http.pages import Page, Paged, page
from shared.http.routing import new_router
from shared.http.unit import Unit
from shared.tx import Database

router = new_router(tags=["console"])

POLL = 0.5
"""Seconds until a waiting door looks by itself: another replica's commits wake nobody here."""
LONGEST_STREAM = 3600.0


class FlowList(Page[FlowSummary]):
    """Flows of all organizations, with the number of unfinished ones before each step."""

    counts: list[Count]


async def visible(request: Request, flow_id: UUID, caller: Anyone) -> FlowView:
    """The flow as it is now. Holds no transaction afterwards: the door may wait."""
    unit = Unit.of(request)
    flow = await flows.see(await unit.tx(), caller, flow_id)
    await unit.release()
    return flow


VisibleFlow = Annotated[FlowView, Depends(visible)]


@router.get("/flows/{flow_id}", response_model_exclude={"rev"})
async def get_flow(request: Request, flow: VisibleFlow, caller: Anyone, wait: Annotated[float, Query(ge=0, le=60)] = 0) -> FlowView:
    """A flow with its steps.

    With `wait`, answers when the flow has ended, waits for a person or a timer, is parked or lost, or else after that many
    seconds. An id that was given out less than a minute ago is `starting` while nothing has been heard of it.
    """
    deadline = time.monotonic() + wait
    with watching(flow.id) as woken:
        while flow.state not in AT_REST and (left := deadline - time.monotonic()) > 0:
            await _woken(woken, min(left, POLL))
            flow = await _as_it_is_now(request, caller, flow)
    return flow


@router.get("/flows/{flow_id}/events", response_class=EventSourceResponse)
async def follow_flow(
    request: Request, flow: VisibleFlow, caller: Anyone, last_event_id: Annotated[str | None, Header(max_length=20)] = None
) -> AsyncIterator[ServerSentEvent]:
    """The flow as Server-Sent Events: one `flow` event whenever it changes, holding all of it, until it has ended.

    The id of an event is the flow's revision. With `Last-Event-ID` the stream starts with the first newer one, so nothing is
    missed: every event holds all steps with their times.
    """
    seen, end = last_event_id, time.monotonic() + LONGEST_STREAM
    with watching(flow.id) as woken, contextlib.suppress(NotFound):
        while True:
            if str(flow.rev) != seen:
                seen = str(flow.rev)
                yield ServerSentEvent(event="flow", id=seen, data=flow.model_dump(mode="json", exclude={"rev"}))
            if flow.state in FINISHED or time.monotonic() > end:
                return
            await _woken(woken, POLL)
            flow = await _as_it_is_now(request, caller, flow)


async def _woken(event: asyncio.Event, at_latest: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), at_latest)
    event.clear()


async def _as_it_is_now(request: Request, caller: Caller, flow: FlowView) -> FlowView:
    """Looks again, in a transaction of its own: the caller may have lost the right to see it. Raises :class:`NotFound` then."""
    database: Database = request.app.state.database
    async with database.transaction(readonly=True) as tx:
        return await flows.see(tx, caller, flow.id)


@router.get("/orgs/{org_id}/flows")
async def flows_of_organization(org_id: UUID, caller: Member, tx: TenantTx, query: Paged) -> Page[FlowSummary]:
    """The organization's flows, newest first."""
    return await page(tx, FlowSummary, query, flows.OF_ORG, newest_first=True)


@router.get("/orgs/{org_id}/audit")
async def audit(org_id: UUID, caller: OrgAdmin, tx: TenantTx, query: Paged) -> Page[history.Entry]:
    """Who did what when, in every service, newest first: the columns that changed, never their values."""
    return await page(tx, history.Entry, query, history.AUDIT, newest_first=True)


@router.get("/flows")
async def all_flows(
    request: Request, caller: Operator, query: Paged, state: FlowState | None = None, flow: str | None = None, step: str | None = None
) -> FlowList:
    """Flows of all organizations, newest first. `step` is the first one still to come; `counts` covers all unfinished flows."""
    tx = await Unit.of(request).tx()
    async with tx.in_bulk():
        found = await page(tx, FlowSummary, query, flows.ALL, state, flow, step, newest_first=True)
        return FlowList(items=found.items, next=found.next, counts=await flows.counts(tx))
