"""Figures: what Prometheus is told of flows."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from schemas.flows import CURRENT
from services.console.conformance import KINDS, kind_of
from services.console.folding import FINISHED, FlowState
from shared.metrics import metrics

_WAITS_FOR = {(f.name, s.name): s.waits_kind if s.waits_for else "mesh" for f in CURRENT for s in f.steps}


class Count(BaseModel):
    """How many unfinished flows stand before a step, in one state."""

    flow: str
    step: str
    state: FlowState
    count: int


for _flow in CURRENT:  # an increase is only seen from a number that was there before
    for _kind in KINDS:
        metrics.flow_deviations.labels(_flow.name, _kind)
    for _state in FINISHED:
        metrics.flows_ended.labels(_flow.name, _state)


def standing(counts: Iterable[Count]) -> None:
    """These are all the flows that have not ended."""
    metrics.flows_now.clear()
    for one in counts:
        metrics.flows_now.labels(one.flow, one.step, one.state, _WAITS_FOR.get((one.flow, one.step), "mesh")).set(one.count)


def moved(rows: Iterable[dict[str, Any]], before: Mapping[UUID, Any]) -> None:
    """Counts what is new of these flows since they were last kept: each end, and each deviation, once."""
    for row in rows:
        was = before[row["id"]]
        for deviation in set(row["deviations"]) - set(was["deviations"] or ()):
            metrics.flow_deviations.labels(row["flow"], kind_of(deviation)).inc()
        if row["finished_at"] and not was["finished_at"]:
            _ended(row)


def _ended(row: dict[str, Any]) -> None:
    metrics.flows_ended.labels(row["flow"], row["state"]).inc()
    if row["state"] != "done":
        return
    metrics.flow_time.labels(row["flow"]).observe((row["finished_at"] - row["started_at"]).total_seconds())
    for step in row["steps"]:
        for name, histogram in (("in_step_ms", metrics.step_time), ("queued_ms", metrics.step_queued)):
            if step.get(name) is not None:
                histogram.labels(row["flow"], step["name"]).observe(step[name] / 1000)
