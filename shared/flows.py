"""Flows as data: what has to happen, one step after the other, through all services.

From a flow come the wiring check, diagrams, deadlines and the monitor; nothing in it makes anything happen.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from shared.changes import Change
from shared.rows import Pattern, Row

On = Literal["inserted", "updated", "changed", "deleted"]

_UNITS = {"ms": 0.001, "s": 1, "min": 60, "hours": 3600, "days": 86400}
_EVENTS = {"inserted": "inserted", "updated": "updated", "changed": "became", "deleted": "deleted"}


def duration(text: str) -> timedelta:
    """``"2 min"``, ``"500 ms"``, ``"7 days"``."""
    number, unit = text.split()
    return timedelta(seconds=float(number) * _UNITS[unit])


@dataclass(frozen=True)
class Step:
    """One step: met when a change of the row leaves it with these values, which are new to it (or deletes it, for ``on="deleted"``).

    ``on``: ``changed`` (the default) is a new row or an old one, ``inserted`` and ``updated`` are one of the two.
    ``by``: the reaction, timer or worker that leads to it, as ``<service>.<function>``; None for a person's or agent's act.
    ``within``: how long after the step before it may take. ``waits_for``: a person or a timer, not a failure, when it takes long.
    ``told``: what the customer is told when it fails. ``optional``: the flow is done without it.
    ``failing``: values of the row that say that this step is in trouble; the row's ``error`` says why.
    """

    name: str
    row: type[Row]
    on: On = "changed"
    by: str | None = None
    within: str = "10 s"
    waits_for: str | None = None
    waits_kind: Literal["person", "timer"] = "person"
    told: str = ""
    optional: bool = False
    failing: dict[str, Any] = field(default_factory=dict, hash=False)
    values: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def pattern(self) -> Pattern:
        return Pattern(self.row, _EVENTS[self.on], self.values)

    @property
    def trouble(self) -> Pattern | None:
        return Pattern(self.row, "changed", self.failing) if self.failing else None

    @property
    def deadline(self) -> timedelta:
        return duration(self.within)


def step(name: str, row: type[Row], *, on: On = "changed", by: str | None = None, within: str = "10 s", waits_for: str | None = None,  # noqa: PLR0913 - the words of a declaration
         waits_kind: Literal["person", "timer"] = "person", told: str = "", optional: bool = False, failing: dict[str, Any] | None = None,
         **values: Any) -> Step:  # fmt: skip
    """A :class:`Step` whose values are written as keywords: ``step("invited", Invitation, state="pending")``."""
    return Step(name, row, on, by, within, waits_for, waits_kind, told, optional, failing or {}, values)


@dataclass(frozen=True)
class Flow:
    """A flow with its owner: who is asked when it is stuck, though each step has another service.

    ``cancelled_by``: changes of the flow's own that end it before its last step, such as an invitation that is withdrawn.
    """

    name: str
    version: int
    owner: str
    steps: tuple[Step, ...]
    cancelled_by: tuple[Pattern, ...] = ()

    def first_matches(self, change: Change) -> bool:
        """Whether a change starts this flow."""
        return self.steps[0].pattern.matches(change)

    @property
    def patterns(self) -> list[Pattern]:
        """All that is looked for in changes."""
        return [*(s.pattern for s in self.steps), *(s.trouble for s in self.steps if s.trouble), *self.cancelled_by]
