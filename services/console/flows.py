"""Flows: the read model of every flow in flight or ended, and who may see it."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel

from schemas.flows import FLOWS
from services.console import conformance, figures, history, sources, troubles, watching
from services.console.figures import Count
from services.console.folding import FINISHED, FlowState, Fold, Judgement, StepState, definition_of
from services.console.history import Seen, Stay
from services.console.troubles import Trouble
from shared.changes import Change, minted_at, stream_id
from shared.errors import NotFound
from shared.http.callers import Caller
from shared.tx import Tx

STARTING_FOR = timedelta(seconds=60)
"""How long an id that this mesh minted may stay unknown: its changes are still on their way."""
_AT_ONCE = 500


class StepView(BaseModel):
    """A step: when it was met and how long it took, or what it waits for."""

    name: str
    state: StepState
    at: datetime | None = None
    in_step_ms: int | None = None
    """From the step before it."""
    queued_ms: int | None = None
    """From the commit of the change that caused it."""
    service: str
    optional: bool = False
    cause: str | None = None
    by: str | None = None
    waits_for: str | None = None
    due_at: datetime | None = None
    owner: str | None = None
    """Who is asked when it is stuck."""
    since: datetime | None = None
    """When it began to fail, or should have been met."""
    attempt: int | None = None
    error: str | None = None
    told: str | None = None
    what_to_do: str | None = None
    """For operators."""


class FlowSummary(BaseModel):
    """A flow in a list. ``step`` is the first one that is still to come."""

    id: UUID
    flow: str | None
    version: int | None
    state: FlowState
    step: str | None
    org_id: UUID | None
    starter: str | None
    started_at: datetime | None
    finished_at: datetime | None


class FlowView(FlowSummary):
    """A flow with its steps. ``data_age_ms`` is the age of what the console last heard of the service that is furthest behind."""

    steps: list[StepView]
    deviations: list[str] = []
    """Where it went otherwise than it is defined: a step that was skipped, repeated, or met after the end."""
    stays: list[Stay] | None = None
    """Of a cancelled flow: the rows it wrote, which nobody takes back."""
    data_age_ms: int | None
    rev: int = 0


OF_ORG = "SELECT *, started_at AS created_at FROM flows WHERE org_id = (SELECT tenant())"
ALL = """
SELECT *, started_at AS created_at FROM flows
WHERE ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR flow = $2) AND ($3::text IS NULL OR step = $3)
    AND (NOT $4 OR state IN ('failing', 'overdue', 'parked', 'lost')) AND (NOT $5 OR deviations <> '{}')"""

_WHAT_TO_DO = {
    "failing": "It is tried again by itself. When the cause is mended: mesh flows retry {id}",
    "parked": "Mend the cause, then: mesh flows retry {id}. To go on without it: mesh flows skip {id}",
    "overdue": "See whether {service} runs, and how far it has come: mesh status, mesh lag",
    "lost": "Nothing is under way any more. When {owner} has seen to it: mesh flows cancel {id}",
}


# Keeping


async def touched(tx: Tx, changes: Sequence[Change], about: Iterable[Trouble]) -> set[UUID]:
    """The flows that these changes and troubles concern."""
    told = [c for c in changes if history.matters_to_flows(c)]
    found = {c.context.flow_id for c in told if c.context.flow_id}
    refs = {(f"{c.source}.{c.table}", history.key_of(c)) for c in told}
    if refs:
        rows = await tx.records(
            'SELECT DISTINCT flow_id FROM flow_bindings WHERE ("table", key) IN (SELECT * FROM unnest($1::text[], $2::text[]))',
            [t for t, _ in refs], [k for _, k in refs],
        )  # fmt: skip
        found.update(r["flow_id"] for r in rows)
    for trouble in about:
        rows = await tx.records(
            "SELECT id FROM flows WHERE finished_at IS NULL AND (id = $1 OR actors @> ARRAY[$2] AND ($3::uuid IS NULL OR org_id = $3)) LIMIT 1000",
            trouble.flow_id, trouble.actor, stream_id(trouble.target or "", "org"),
        )  # fmt: skip
        found.update(r["id"] for r in rows)
    return found


async def due(tx: Tx) -> list[UUID]:
    """The flows that the passing of time has changed."""
    rows = await tx.records("SELECT id FROM flows WHERE check_at < (SELECT max(newest_at) FROM sources) ORDER BY check_at LIMIT $1", _AT_ONCE)
    return [r["id"] for r in rows]


async def refold(tx: Tx, flow_ids: Iterable[UUID]) -> None:
    """Works out anew what these flows have come to. The same history makes the same flows, however often and in whatever order."""
    ids = sorted(set(flow_ids))
    if not ids:
        return
    await tx.run("SELECT pg_advisory_xact_lock(k) FROM (SELECT DISTINCT hashtextextended(i::text, 0) AS k FROM unnest($1::uuid[]) i ORDER BY k) s", ids)
    own = await history.of_flows(tx, ids)
    folds = await _folds(tx, own)
    if folds:
        known = await troubles.of(tx, {i: sorted({s.change.stream for s in own[i]}) for i in folds})
        age = await sources.age(tx)
        rows = [
            Judgement(fold, known[i], age).document() | {"org_id": _org(own[i]), "deviations": conformance.deviations(fold, own[i])}
            for i, fold in folds.items()
        ]
        before = await _keep(tx, await _with_persons(tx, rows, folds), folds)
        tx.after_commit.append(lambda: figures.moved(rows, before))
    tx.after_commit.append(lambda: watching.tell(ids))


async def _folds(tx: Tx, own: dict[UUID, list[Seen]]) -> dict[UUID, Fold]:
    rows = await tx.records("SELECT id, flow, version FROM flows WHERE id = ANY($1)", list(own))
    pinned = {(r["id"], r["flow"]): r["version"] for r in rows}
    folds = {}
    for i, changes in own.items():
        if defined := definition_of(changes):
            flow, start = defined
            flow = FLOWS.get((flow.name, pinned.get((i, flow.name), flow.version)), flow)
            folds[i] = Fold(i, flow, start).add(changes)
    watched = {ref: fold.start.at for fold in folds.values() if fold.to_come for ref in fold.bound}
    if watched:
        by_row = await history.of_rows(tx, watched, min(watched.values()))
        for i, fold in folds.items():
            others = [s for ref in fold.bound for s in by_row.get(ref, ()) if s.flow_id != i] if fold.to_come else []
            if others:
                folds[i] = Fold(i, fold.flow, fold.start).add(own[i] + others)
    return folds


def _org(changes: Iterable[Seen]) -> UUID | None:
    return next((org for s in changes if (org := stream_id(s.change.stream, "org"))), None)


async def _with_persons(tx: Tx, rows: list[dict[str, Any]], folds: dict[UUID, Fold]) -> list[dict[str, Any]]:
    """Adds whose flow each is: the person who started it, the owner of the API key, or the person it is about."""
    keys = {UUID(by[4:]) for r in rows if (by := r["starter"] or "").startswith("key:")}
    owners = {r["id"]: r["user_id"] for r in await tx.records("SELECT id, user_id FROM api_keys WHERE id = ANY($1)", list(keys))} if keys else {}
    for r in rows:
        kind, _, id = (r["starter"] or "").partition(":")
        about = stream_id(folds[r["id"]].start.change.stream, "user")
        r["person"] = UUID(id) if kind == "user" else owners.get(UUID(id)) if kind == "key" else about
    return rows


async def _keep(tx: Tx, rows: list[dict[str, Any]], folds: dict[UUID, Fold]) -> dict[UUID, Any]:
    """Answers what each of them was before."""
    before = await tx.records(
        "INSERT INTO flows AS f (id, flow, version, state, org_id, starter, person, started_at, finished_at, step, actors, check_at, steps, deviations) "
        "SELECT id, flow, version, state, org_id, starter, person, started_at, finished_at, step, actors, check_at, steps, deviations "
        "FROM jsonb_populate_recordset(NULL::flows, $1) ON CONFLICT (id) DO UPDATE SET flow = excluded.flow, version = excluded.version, "
        "state = excluded.state, org_id = excluded.org_id, starter = excluded.starter, person = excluded.person, started_at = excluded.started_at, "
        "finished_at = excluded.finished_at, step = excluded.step, actors = excluded.actors, check_at = excluded.check_at, steps = excluded.steps, "
        "deviations = excluded.deviations, "
        "rev = f.rev + ((f.state, f.org_id, f.steps) IS DISTINCT FROM (excluded.state, excluded.org_id, excluded.steps))::int "
        "RETURNING new.id, old.finished_at, old.deviations",
        orjson.dumps(rows, default=str).decode(),
    )
    await tx.run(
        "INSERT INTO flow_org SELECT * FROM unnest($1::uuid[], $2::uuid[]) ON CONFLICT (id) DO UPDATE SET org_id = excluded.org_id",
        [r["id"] for r in rows], [r["org_id"] for r in rows],
    )  # fmt: skip
    await tx.run("DELETE FROM flow_bindings WHERE flow_id = ANY($1)", [r["id"] for r in rows if r["state"] in FINISHED])
    bindings = [(ref, r["id"]) for r in rows if r["state"] not in FINISHED for ref in folds[r["id"]].bound]
    await tx.run(
        "INSERT INTO flow_bindings SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[]) ON CONFLICT DO NOTHING",
        [ref[0] for ref, _ in bindings], [ref[1] for ref, _ in bindings], [i for _, i in bindings],
    )  # fmt: skip
    return {r["id"]: r for r in before}


# Seeing


async def see(tx: Tx, caller: Caller, flow_id: UUID) -> FlowView:
    """The flow, for a member of its organization, its starter, or an operator; ``starting`` while its changes may still be on their way.

    Raises :class:`NotFound` for everybody else, and for an id that no door of this mesh has given out lately.
    """
    known = await tx.records("SELECT org_id FROM flow_org WHERE id = $1", flow_id)
    if not known:
        return await _starting(tx, flow_id)
    if caller.kind == "operator":
        async with tx.in_bulk():
            flow = await _seen(tx, flow_id)
        return flow.model_copy(update={"steps": [_advised(flow, s) for s in flow.steps]})
    await _act_for(tx, caller, known[0]["org_id"])
    return await _seen(tx, flow_id)


async def _seen(tx: Tx, flow_id: UUID) -> FlowView:
    """What the transaction may see of it. Raises :class:`NotFound`."""
    row = await tx.records("SELECT * FROM flows WHERE id = $1", flow_id)
    if not row:
        raise NotFound
    stays = await history.staying(tx, flow_id) if row[0]["state"] == "cancelled" else None
    return FlowView.model_validate(dict(row[0]) | {"data_age_ms": await sources.oldest_age_ms(tx), "stays": stays})


def _advised(flow: FlowView, step: StepView) -> StepView:
    advice = _WHAT_TO_DO.get(step.state)
    return step.model_copy(update={"what_to_do": advice and advice.format(id=flow.id, service=step.service, owner=step.owner)})


async def _act_for(tx: Tx, caller: Caller, org_id: UUID | None) -> None:
    """As the organization when the caller is a member of it, else as the person alone."""
    tx.act_as(org_id, caller.user_id, tx.context, None)
    if org_id and not await tx.value("SELECT true FROM memberships WHERE org_id = (SELECT tenant()) AND user_id = $1", caller.user_id):
        tx.act_as(None, caller.user_id, tx.context, None)


async def _starting(tx: Tx, flow_id: UUID) -> FlowView:
    minted = minted_at(flow_id)
    if minted is None or minted > await tx.value("SELECT clock_timestamp()") + STARTING_FOR:
        raise NotFound
    newest = (await sources.age(tx)).now
    if newest and newest > minted + STARTING_FOR:
        raise NotFound
    return FlowView(
        id=flow_id, flow=None, version=None, state="starting", step=None, org_id=None, starter=None, started_at=minted, finished_at=None, steps=[],
        data_age_ms=await sources.oldest_age_ms(tx),
    )  # fmt: skip


async def counts(tx: Tx) -> list[Count]:
    """How many flows of all tenants stand at each step: for operators."""
    return await tx.all(
        Count, "SELECT flow, step, state, count(*) AS count FROM flows WHERE finished_at IS NULL AND step IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
