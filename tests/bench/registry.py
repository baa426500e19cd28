"""The list of benchmarks: each is a function that measures something and says what it found."""

import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Figure:
    """One measured quantity. ``runs`` holds every run; what counts is their median."""

    name: str
    unit: str
    runs: list[float] = field(default_factory=list)
    at_most: float | None = None
    at_least: float | None = None

    @property
    def value(self) -> float:
        return statistics.median(self.runs)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least


@dataclass
class Bench:
    """What a case writes its figures into."""

    quick: bool
    figures: dict[str, Figure] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    """Whatever explains the figures: conditions of the case, times of single steps."""

    def saw(self, name: str, unit: str, value: float, *, at_most: float | None = None, at_least: float | None = None) -> None:
        """One run of a figure."""
        figure = self.figures.setdefault(name, Figure(name, unit, [], at_most, at_least))
        figure.runs.append(round(value, 4))

    def saw_times(self, name: str, milliseconds: Sequence[float], *, p50: float | None = None, p99: float | None = None) -> None:
        """One run of many single times: their median, 99th percentile and maximum, with the goals for the first two."""
        ordered = sorted(milliseconds)
        self.saw(f"{name} p50", "ms", percentile(ordered, 50), at_most=p50)
        self.saw(f"{name} p99", "ms", percentile(ordered, 99), at_most=p99)
        self.saw(f"{name} max", "ms", ordered[-1])


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of the values do not exceed."""
    return ordered[max(0, -(-len(ordered) * int(percent) // 100) - 1)]


CASES: dict[str, Callable[[Bench], Awaitable[None]]] = {}


def case(name: str) -> Callable[[Callable[[Bench], Awaitable[None]]], Callable[[Bench], Awaitable[None]]]:
    """Registers a benchmark under its name."""

    def register(function: Callable[[Bench], Awaitable[None]]) -> Callable[[Bench], Awaitable[None]]:
        CASES[name] = function
        return function

    return register
