"""Flows as data: what has to happen, one step after the other, through all services.

From a flow come the wiring check, diagrams, deadlines and the monitor; nothing in it makes anything happen.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from shared.rows import Pattern, Row

_UNITS = {"ms": 0.001, "s": 1, "min": 60, "hours": 3600, "days": 86400}


def duration(text: str) -> timedelta:
    """``"2 min"``, ``"500 ms"``, ``"7 days"``."""
    number, unit = text.split()
    return timedelta(seconds=float(number) * _UNITS[unit])


@dataclass(frozen=True)
class Step:
    """One step: met when a change of the row leaves it with these values (or deletes it, for ``on="deleted"``).

    ``by``: the reaction, timer or worker that leads to it, as ``<service>.<function>``; None for a person's or agent's act.
    ``within``: how long after the step before it may take. ``waits_for``: a person or a timer, not a failure, when it takes long.
    ``told``: what the customer is told when it fails. ``optional``: the flow is done without it.
    """

    name: str
    row: type[Row]
    on: Literal["inserted", "changed", "deleted"] = "changed"
    by: str | None = None
    within: str = "10 s"
    waits_for: str | None = None
    waits_kind: Literal["person", "timer"] = "person"
    told: str = ""
    optional: bool = False
    values: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def pattern(self) -> Pattern:
        return Pattern(self.row, {"inserted": "inserted", "changed": "became", "deleted": "deleted"}[self.on], self.values)

    @property
    def deadline(self) -> timedelta:
        return duration(self.within)


def step(name: str, row: type[Row], *, on: Literal["inserted", "changed", "deleted"] = "changed", by: str | None = None, within: str = "10 s",
         waits_for: str | None = None, waits_kind: Literal["person", "timer"] = "person", told: str = "", optional: bool = False, **values: Any) -> Step:  # fmt: skip
    """A :class:`Step` whose values are written as keywords: ``step("invited", Invitation, state="pending")``."""
    return Step(name, row, on, by, within, waits_for, waits_kind, told, optional, values)


@dataclass(frozen=True)
class Flow:
    """A flow with its owner: who is asked when it is stuck, though each step has another service."""

    name: str
    version: int
    owner: str
    steps: tuple[Step, ...]

    def first_matches(self, change: Any) -> bool:
        """Whether a change starts this flow."""
        return self.steps[0].pattern.matches(change)
