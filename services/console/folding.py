"""Folding: what a flow has come to, from its definition and every change that concerns it, in whatever order they were seen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from schemas.flows import CURRENT
from services.console.history import ORDERS, RESULTS, Seen
from services.console.sources import Age
from services.console.troubles import Trouble
from shared.flows import Flow, Step

FlowState = Literal["starting", "running", "failing", "overdue", "waiting_timer", "waiting_person", "parked", "lost", "done", "superseded", "cancelled"]
StepState = Literal["pending", "met", "skipped", "failing", "parked", "overdue", "lost", "waiting_timer", "waiting_person"]
FINISHED = frozenset({"done", "superseded", "cancelled"})
AT_REST = FINISHED | {"waiting_timer", "waiting_person", "parked", "lost"}
"""Where a flow does not go on by itself soon."""

LOST_AFTER = timedelta(seconds=60)
"""Past its deadline for longer than a worker's lease (30 s), after which work that was killed is taken up again by another replica."""

Ref = tuple[str, str]

_MOST_PARTICULAR_FIRST = sorted(CURRENT, key=lambda f: -len(f.steps[0].values))


def definition_of(changes: Iterable[Seen]) -> tuple[Flow, Seen] | None:
    """Which flow these changes of one flow id belong to, and the change that started it; None while that has not been seen.

    A flow starts with a change that no change of the same flow has caused, so that a sign-up's database is no flow of its own;
    nor does an agent's report start one. Of several definitions the one that asks for more is meant.
    """
    for seen in sorted(changes, key=_order):
        if _may_start(seen):
            for flow in _MOST_PARTICULAR_FIRST:
                if flow.first_matches(seen.change):
                    return flow, seen
    return None


def _may_start(seen: Seen) -> bool:
    context = seen.change.context
    if (context.by or "").startswith("agent:"):
        return False
    return context.cause is None or (seen.cause_at is not None and seen.cause_flow != seen.flow_id)


def _order(seen: Seen) -> tuple[datetime, str, int]:
    return seen.at, seen.change.stream, seen.change.seq


@dataclass
class Fold:
    """One flow as far as it has come. ``add`` its changes, and those of the rows it looks at, then ``finish``."""

    id: UUID
    flow: Flow
    start: Seen
    met: list[Seen | None] = field(default_factory=list)
    bound: dict[Ref, int] = field(default_factory=dict)
    latest: dict[Ref, Seen] = field(default_factory=dict)
    cancelled: Seen | None = None
    left_out: set[str] = field(default_factory=set)
    """Reactions and workers that an operator skipped."""

    def add(self, changes: Iterable[Seen]) -> "Fold":
        """Takes all changes at once, in the order of their time."""
        self.met = [None] * len(self.flow.steps)
        for seen in sorted(changes, key=_order):
            mine = seen.flow_id == self.id
            if mine or seen.ref in self.bound:
                self._take(seen)
            if mine and (_cancels(seen) or any(p.matches(seen.change) for p in self.flow.cancelled_by)):
                self.cancelled = self.cancelled or seen
            if mine and seen.change.table == RESULTS and seen.change.row["act"] == "skip" and seen.change.row["did"]:
                self.left_out.add(seen.change.row["actor"])
        return self

    def _take(self, seen: Seen) -> None:
        self.latest[seen.ref] = seen
        for i, step in enumerate(self.flow.steps):
            if self.met[i] is None and step.pattern.matches(seen.change):
                self.met[i] = seen
                self.bound[seen.ref] = i

    def is_over(self, i: int) -> bool:
        """Met, or skipped: by an operator, or because a later state of the same row was written without it."""
        return (
            self.met[i] is not None
            or self.flow.steps[i].by in self.left_out
            or any(self.met[j] is not None and _is_earlier_state(self.flow.steps[i], self.flow.steps[j]) for j in range(i + 1, len(self.flow.steps)))
        )

    @property
    def to_come(self) -> list[int]:
        return [i for i, s in enumerate(self.flow.steps) if not self.is_over(i) and not s.optional]

    @property
    def superseded(self) -> Seen | None:
        """The change of another flow after which a step that was met does not hold any more."""
        for ref, i in self.bound.items():
            last, step = self.latest[ref], self.flow.steps[i]
            gone = last.change.op == "delete" and step.on != "deleted"
            if last.flow_id != self.id and (gone or not step.pattern.holds(last.change.row)):
                return last
        return None

    @property
    def end(self) -> tuple[FlowState, datetime] | None:
        """How and when it ended, if it has."""
        if not self.to_come:
            return "done", max(m.at for m, s in zip(self.met, self.flow.steps, strict=True) if m and not s.optional)
        if self.cancelled:
            return "cancelled", self.cancelled.at
        superseded = self.superseded
        return ("superseded", superseded.at) if superseded else None

    def since(self, i: int) -> datetime:
        """When the steps before this one were met."""
        return max((m.at for m in self.met[:i] if m), default=self.start.at)


def _cancels(seen: Seen) -> bool:
    return seen.change.table == ORDERS and seen.change.row["act"] == "cancel"


def _is_earlier_state(step: Step, later: Step) -> bool:
    differing = {c for c, v in step.values.items() if later.values.get(c) != v}
    return step.row is later.row and step.on != "deleted" and all(c.endswith("state") for c in differing)


@dataclass
class Judgement:
    """A fold judged at the data's time: the state of each step and of the flow, and when time alone changes it next."""

    fold: Fold
    troubles: Sequence[Trouble]
    age: Age
    check_at: datetime | None = None

    def document(self) -> dict[str, Any]:
        """The flow's row."""
        fold = self.fold
        end = fold.end
        steps = [self._step(i, running=end is None) for i in range(len(fold.flow.steps))]
        to_come = [] if end else fold.to_come
        return {
            "id": fold.id,
            "flow": fold.flow.name,
            "version": fold.flow.version,
            "state": end[0] if end else self._state([steps[i]["state"] for i in to_come]),
            "starter": fold.start.change.context.by,
            "started_at": fold.start.at,
            "finished_at": end[1] if end else None,
            "step": fold.flow.steps[to_come[0]].name if to_come else None,
            "actors": sorted({fold.flow.steps[i].by or "" for i in to_come}),
            "check_at": self.check_at,
            "steps": steps,
        }

    @staticmethod
    def _state(of_steps: Sequence[str]) -> FlowState:
        for worst in ("parked", "failing"):
            if worst in of_steps:
                return worst
        return "running" if of_steps[0] == "pending" else of_steps[0]  # type: ignore[return-value]  # so is every other state of a step to come

    def _step(self, i: int, *, running: bool) -> dict[str, Any]:
        step, seen = self.fold.flow.steps[i], self.fold.met[i]
        shown: dict[str, Any] = {"name": step.name, "service": (step.by or step.row.table).partition(".")[0], "optional": step.optional}
        if seen:
            in_step, cause_at = seen.at - self.fold.since(i), seen.cause_at
            queued = None if cause_at is None else _ms(seen.at - cause_at)
            return shown | {"state": "met", "at": seen.at, "in_step_ms": _ms(in_step), "queued_ms": queued, "cause": seen.change.context.cause}
        if self.fold.is_over(i):
            return shown | {"state": "skipped"}
        if not running:
            return shown | {"state": "pending"}
        trouble = self._trouble(i)
        state = self._state_to_come(i, trouble)
        shown |= {"state": state, "by": step.by, "waits_for": step.waits_for, "due_at": self.fold.since(i) + step.deadline}
        if trouble:
            shown |= {"attempt": trouble.attempt, "error": trouble.error}
        if state == "pending" or state.startswith("waiting"):
            return shown
        return shown | {"told": step.told, "owner": self.fold.flow.owner, "since": trouble.since if trouble and trouble.since else shown["due_at"]}

    def _state_to_come(self, i: int, trouble: Trouble | None) -> StepState:
        if trouble and trouble.state != "waiting":
            return "parked" if trouble.state == "dead" else "failing"
        if i != next(iter(self.fold.to_come), None):
            return "pending"
        return self._late(i, quiet=trouble is None)

    def _late(self, i: int, *, quiet: bool) -> StepState:
        """The next step without a known failure: in time, overdue, or lost."""
        step, due = self.fold.flow.steps[i], self.fold.since(i) + self.fold.flow.steps[i].deadline
        now = self.age.now or due
        if now <= due:
            self.check_at = due + timedelta(microseconds=1)
            if step.waits_for:
                return "waiting_person" if step.waits_kind == "person" else "waiting_timer"
            return "pending"
        if step.waits_for or not quiet:
            return "overdue"
        if self.age.complete and self.age.complete > due + LOST_AFTER:
            return "lost"
        self.check_at = max(due + LOST_AFTER, now + timedelta(seconds=2))
        return "overdue"

    def _trouble(self, i: int) -> Trouble | None:
        """What is known to hold this step up."""
        step, own = self.fold.flow.steps[i], self.fold.id
        known = [t for t in self.troubles if t.actor == step.by]
        if i == next(iter(self.fold.to_come), None):
            actors = {s.by for s in self.fold.flow.steps}
            known += [t for t in self.troubles if t.flow_id == own and t.actor not in actors]
        if not known and step.trouble:
            rows = [s for s in self.fold.latest.values() if step.trouble.matches(s.change) and step.trouble.holds(s.change.row)]
            said = [(s.at, str(s.change.row.get("error") or f"{step.row.__name__} failed")) for s in rows]
            known = [Trouble(step.by or "", "", own, "retrying", 0, error, since=at) for at, error in said]
        return max(known, key=lambda t: ("waiting", "retrying", "dead").index(t.state), default=None)


def _ms(delta: timedelta) -> int:
    return max(0, round(delta.total_seconds() * 1000))
