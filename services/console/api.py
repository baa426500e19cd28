"""The console's doors."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Path, Query, Request
from fastapi.responses import HTMLResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field

from services.console import flows, history, links, orders
from services.console.figures import Count
from services.console.flows import FlowSummary, FlowView
from services.console.folding import AT_REST, FINISHED, FlowState
from services.console.orders import Order, OrderView, Parked
from services.console.troubles import State
from services.console.watching import watching
from shared.errors import NotFound
from shared.http.callers import Anyone, Member, OpenTx, Operator, OrgAdmin, TenantTx, Unauthenticated, identified
from shared.http.pages import Page, Paged, page
from shared.http.routing import Body, new_router
from shared.http.unit import Unit
from shared.tx import Database

router = new_router(tags=["console"])
operators = new_router(tags=["operators"])
pages = new_router(include_in_schema=False)

POLL = 0.5
"""Seconds until a waiting door looks by itself: another replica's commits wake nobody here."""
LONGEST_STREAM = 3600.0


class FlowList(Page[FlowSummary]):
    """Flows of all organizations, with the number of unfinished ones before each step."""

    counts: list[Count]


Reason = Annotated[str, Field(max_length=500, description="For those who read the trail later; it does not leave the console")]
Token = Annotated[str, Query(pattern=r"^[\w.-]+$", max_length=2000)]
Service = Annotated[str, Path(pattern="^[a-z_]+$")]
Stream = Annotated[str, Field(pattern="^((org|user):[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|global:[a-z_]+)$")]


class ReasonBody(Body):
    reason: Reason = ""


class ActorBody(ReasonBody):
    actor: Annotated[str, Field(pattern=r"^[a-z_]+\.\w+$", description="A reaction or worker, as `<service>.<function>`")]


class ResendBody(ReasonBody):
    stream: Stream
    from_seq: Annotated[int | None, Field(ge=1, lt=2**63, description="The first number; the stream's beginning by default")] = None
    to_seq: Annotated[int | None, Field(ge=1, lt=2**63, description="The last number; the stream's head by default")] = None


class RestateBody(ReasonBody):
    stream: Annotated[Stream | None, Field(description="All streams of the service by default")] = None


class Orders(BaseModel):
    """The orders that were given. `GET /orders/{id}` tells what came of each."""

    orders: list[Order]


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
            flow = await _as_it_is_now(request, flow)
    return flow


@router.get("/flows/{flow_id}/events", response_class=EventSourceResponse)
async def follow_flow(
    request: Request, flow: VisibleFlow, caller: Anyone, last_event_id: Annotated[str | None, Header(max_length=20)] = None
) -> AsyncIterator[ServerSentEvent]:
    """The flow as Server-Sent Events: one `flow` event whenever it changes, holding all of it, until it has ended.

    The id of an event is the flow's revision. With `Last-Event-ID` the stream starts with the first newer one, so nothing is
    missed: every event holds all steps with their times. It ends as well when the access token expires, the session or key has
    ended, or the flow is not the caller's to see any more: connect again, and the answer says which.
    """
    seen, end = last_event_id, time.monotonic() + LONGEST_STREAM
    with watching(flow.id) as woken, contextlib.suppress(NotFound, Unauthenticated):
        while True:
            if str(flow.rev) != seen:
                seen = str(flow.rev)
                yield ServerSentEvent(event="flow", id=seen, data=flow.model_dump(mode="json", exclude={"rev"}))
            if flow.state in FINISHED or time.monotonic() > end:
                return
            await _woken(woken, POLL)
            flow = await _as_it_is_now(request, flow)


async def _woken(event: asyncio.Event, at_latest: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), at_latest)
    event.clear()


async def _as_it_is_now(request: Request, flow: FlowView) -> FlowView:
    """Looks again, in a transaction of its own. Raises :class:`NotFound` when the caller has lost the right to see it, and
    :class:`Unauthenticated` when their token, session or key has ended.
    """
    database: Database = request.app.state.database
    async with database.transaction(readonly=True) as tx:
        return await flows.see(tx, await identified(request, tx), flow.id)


@router.get("/orgs/{org_id}/flows")
async def flows_of_organization(org_id: UUID, caller: Member, tx: TenantTx, query: Paged) -> Page[FlowSummary]:
    """The organization's flows, newest first."""
    return await page(tx, FlowSummary, query, flows.OF_ORG, newest_first=True)


@router.get("/orgs/{org_id}/audit")
async def audit(org_id: UUID, caller: OrgAdmin, tx: TenantTx, query: Paged) -> Page[history.Entry]:
    """Who did what when, in every service, newest first: the columns that changed, never their values."""
    return await page(tx, history.Entry, query, history.AUDIT, newest_first=True)


@operators.get("/flows")
async def all_flows(
    request: Request, caller: Operator, query: Paged, state: FlowState | None = None, flow: str | None = None, step: str | None = None,
    stuck: bool = False, deviating: bool = False,
) -> FlowList:  # fmt: skip
    """Flows of all organizations, newest first. `step` is the first one still to come; `counts` covers all unfinished flows.

    `stuck` shows those that are failing, overdue, parked or lost, `deviating` those that went otherwise than they are defined.
    """
    tx = await Unit.of(request).tx()
    async with tx.in_bulk():
        found = await page(tx, FlowSummary, query, flows.ALL, state, flow, step, stuck, deviating, newest_first=True)
        return FlowList(items=found.items, next=found.next, counts=await flows.counts(tx))


@operators.post("/flows/{flow_id}/retry", status_code=201)
async def retry_flow(flow_id: UUID, body: ReasonBody, caller: Operator, tx: OpenTx) -> Orders:
    """Has everything tried now that is parked or failing for a flow, or waits before it. What was dead gets another day."""
    return Orders(orders=await orders.retry_flow(tx, caller, flow_id, body.reason))


@operators.post("/flows/{flow_id}/skip", status_code=201)
async def skip_flow(flow_id: UUID, body: ReasonBody, caller: Operator, tx: OpenTx) -> Orders:
    """Leaves out the change or the work that a flow is stuck on. What waits behind it is applied in order; nothing is done in its place."""
    return Orders(orders=await orders.skip_flow(tx, caller, flow_id, body.reason))


@operators.post("/flows/{flow_id}/cancel", status_code=201)
async def cancel_flow(flow_id: UUID, body: ReasonBody, caller: Operator, tx: OpenTx) -> Orders:
    """Stops a flow: no service reacts to its changes any more, and work for its steps to come is taken back.

    Nothing is compensated: the rows it wrote stay, and `stays` of the cancelled flow lists them.
    """
    return Orders(orders=[await orders.cancel_flow(tx, caller, flow_id, body.reason)])


@operators.get("/parked")
async def list_parked(
    caller: Operator, tx: OpenTx, query: Paged, state: State | None = None, service: str | None = None, actor: str | None = None
) -> Page[Parked]:
    """What is parked, failing or held by a fuse in any service, oldest first. `dead` is not tried any more until somebody says so."""
    async with tx.in_bulk():
        return await page(tx, Parked, query, orders.PARKED, state, service, actor)


@operators.get("/parked/{id}")
async def get_parked(id: UUID, caller: Operator, tx: OpenTx) -> Parked:
    """One of them."""
    async with tx.in_bulk():
        return await orders.parked(tx, id)


@operators.post("/parked/retry", status_code=201)
async def retry_all(body: ActorBody, caller: Operator, tx: OpenTx) -> Orders:
    """Has everything tried now that is parked for one reaction, or failing for one worker: after it was mended."""
    return Orders(orders=[await orders.retry_all(tx, caller, body.actor, body.reason)])


@operators.post("/parked/{id}/retry", status_code=201)
async def retry_parked(id: UUID, body: ReasonBody, caller: Operator, tx: OpenTx) -> Orders:
    """Has it tried now. What was dead gets another day; of a fuse, everything that its reaction holds is tried."""
    return Orders(orders=[await orders.retry_parked(tx, caller, id, body.reason)])


@operators.post("/parked/{id}/skip", status_code=201)
async def skip_parked(id: UUID, body: ReasonBody, caller: Operator, tx: OpenTx) -> Orders:
    """Leaves out the change that a reaction fails on, and applies what waits behind it in order; or takes back work that fails."""
    return Orders(orders=[await orders.skip_parked(tx, caller, id, body.reason)])


@operators.post("/services/{service}/resend", status_code=201)
async def resend(service: Service, body: ResendBody, caller: Operator, tx: OpenTx) -> Orders:
    """Has a service send changes of one stream again, under their old numbers. Who has applied them passes over them."""
    return Orders(orders=[await orders.resend(tx, caller, service, body.stream, (body.from_seq, body.to_seq), body.reason)])


@operators.post("/services/{service}/restate", status_code=201)
async def restate(service: Service, body: RestateBody, caller: Operator, tx: OpenTx) -> Orders:
    """Has a service say what its rows are now, at a pace that leaves live changes their speed.

    Copies elsewhere become equal to them, and holes in a stream that nothing else could close are closed. No reaction runs.
    """
    return Orders(orders=[await orders.restate(tx, caller, service, body.stream, body.reason)])


@operators.get("/orders")
async def list_orders(caller: Operator, tx: OpenTx, query: Paged) -> Page[Order]:
    """What operators have ordered, newest first."""
    async with tx.in_bulk():
        return await page(tx, Order, query, orders.LIST, newest_first=True)


@operators.get("/orders/{id}")
async def get_order(id: UUID, caller: Operator, tx: OpenTx) -> OrderView:
    """An order with what came of it in each service."""
    async with tx.in_bulk():
        return await orders.get(tx, id)


@operators.get("/audit")
async def audit_of_operators(caller: Operator, tx: OpenTx, query: Paged) -> Page[history.Entry]:
    """What operators did, in every service and organization, newest first."""
    async with tx.in_bulk():
        return await page(tx, history.Entry, query, history.OF_OPERATORS, newest_first=True)


@pages.get("/verify")
async def verify_page(token: Token) -> HTMLResponse:
    return _for_people(links.verify(token))


@pages.get("/reset")
async def reset_page(token: Token) -> HTMLResponse:
    return _for_people(links.reset(token))


@pages.get("/invitations/{invitation_id}")
async def invitation_page(invitation_id: UUID) -> HTMLResponse:
    return _for_people(links.invitation(invitation_id))


def _for_people(page: str) -> HTMLResponse:
    """What holds a token is kept nowhere."""
    return HTMLResponse(page, headers={"Cache-Control": "no-store"})


router.include_router(operators)
router.include_router(pages)
