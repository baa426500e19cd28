"""Published rows as models, and the patterns over their changes that reactions and flow steps are made of."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from shared.changes import Change


class _Present:
    """Equal to everything but None."""

    __hash__ = None  # type: ignore[assignment]  # what equals many things has no hash

    def __eq__(self, other: object) -> bool:
        return other is not None

    def __repr__(self) -> str:
        return "present"


present: Any = _Present()
"""As the value of a pattern: whatever it is, it is there."""


@dataclass(frozen=True)
class Pattern:
    """Which changes of one published table are meant. ``event``: inserted, updated, deleted, became, changed."""

    row: type["Row"]
    event: str
    values: dict[str, Any] = field(default_factory=dict, hash=False)

    def matches(self, change: Change) -> bool:
        """Whether the change is one of these. A restatement is none: it says what is, not what happened."""
        if f"{change.source}.{change.table}" != self.row.table or change.op == "restate":
            return False
        match self.event:
            case "inserted":
                return change.op == "insert" and self.holds(change.row)
            case "updated":
                return change.op == "update" and self.holds(change.row) and self._moved(change)
            case "deleted":
                return change.op == "delete"
            case "became":
                return change.op != "delete" and self.holds(change.row) and (change.before is None or self._moved(change))
            case _:
                return True

    def _moved(self, change: Change) -> bool:
        """Whether one of the values is new with this change."""
        return not self.values or not self.values.keys().isdisjoint(change.before or {})

    def holds(self, row: dict[str, Any]) -> bool:
        """Whether the row has all these values. A tuple lists the values that will do."""
        return all(row.get(k) in v if isinstance(v, tuple) else row.get(k) == v for k, v in self.values.items())

    def __str__(self) -> str:
        values = ", ".join(f"{k}={v}" for k, v in self.values.items())
        return f"{self.row.__name__} {self.event}" + (f" {values}" if values else "")


class Row(BaseModel):
    """A row that a service publishes: the contract other services may rely on.

    A subclass names its ``table`` as ``<service>.<table>``, its ``key`` columns, and the kind of ``stream`` (or kinds) that carries it.
    Columns that are not named here may come and go.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    table: ClassVar[str]
    key: ClassVar[tuple[str, ...]] = ("id",)
    stream: ClassVar[str | tuple[str, ...]] = "org"
    inserted: ClassVar[Pattern]
    updated: ClassVar[Pattern]
    deleted: ClassVar[Pattern]
    changed: ClassVar[Pattern]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for event in ("inserted", "updated", "deleted", "changed"):
            setattr(cls, event, Pattern(cls, event))

    @classmethod
    def became(cls, **values: Any) -> Pattern:
        """The row has these values now and did not before (or is new with them)."""
        return Pattern(cls, "became", values)

    @classmethod
    def of(cls, change: Change) -> Self:
        """The row a change of this table leaves, or left for a delete."""
        return cls.model_validate(change.row)

    @classmethod
    def owner(cls) -> str:
        """The service that publishes it."""
        return cls.table.partition(".")[0]
