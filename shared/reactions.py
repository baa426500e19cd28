"""Reactions: functions that run once, in order, for each matching change of another service."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.changes import Change
from shared.rows import Pattern, Row
from shared.tx import Database, Tx

Function = Callable[..., Awaitable[None]]


@dataclass(frozen=True)
class Reaction:
    """One function with the pattern it reacts to.

    ``writes`` names the stream it writes when that is not the stream of the change. ``many`` takes a list of rows of one
    stream instead of a row. ``catch_up`` has it act on what was there before it, too.
    """

    name: str
    pattern: Pattern
    function: Function
    writes: Callable[[Any], str] | None
    many: bool
    catch_up: bool = False

    @property
    def service(self) -> str:
        return self.name.partition(".")[0]

    def concerns(self, change: Change, since: datetime | None) -> bool:
        """Whether it acts on this change. ``since``: when it was activated; None when nothing is older than that."""
        if self.catch_up:
            return self.pattern.matches(change) or (change.op == "restate" and self.pattern.holds(change.row))
        return self.pattern.matches(change) and (since is None or change.at >= since)

    def target(self, change: Change) -> str:
        """The stream this reaction writes for the change. Raises what ``writes`` raises."""
        return self.writes(self.pattern.row.of(change)) if self.writes else change.stream


_all: dict[str, Reaction] = {}


@dataclass(frozen=True)
class Follower:
    """One function that takes every change of every service, a batch at a time."""

    name: str
    function: Callable[[Tx, list[Change]], Awaitable[None]]

    @property
    def service(self) -> str:
        return self.name.partition(".")[0]


_followers: dict[str, Follower] = {}


def on(pattern: Pattern, *, writes: Callable[[Any], str] | None = None, many: bool = False, catch_up: bool = False) -> Callable[[Function], Function]:
    """Runs the function in the transaction that moves the position past the change: exactly once, in the stream's order.

    The function gets a :class:`shared.tx.Tx` whose tenant or person is that of the stream it writes, and the row. What it
    raises parks this reaction for this stream; :class:`shared.errors.NotYet` says that a row it needs has not come.

    With ``many`` it gets a list of rows: changes of one stream that came together and follow each other, often only one. What it
    writes then belongs to their flow only when all are of one flow, so that such a reaction leads to no step of a flow.

    A new reaction in a service that runs already acts on what happens from its first start on. With ``catch_up`` it acts on what is
    there as well: on older changes, and on the rows of a restatement (``mesh restate``), so that doing it twice must change nothing.
    """

    def register(function: Function) -> Function:
        service = function.__module__.split(".")[1]
        name = f"{service}.{function.__name__}"
        if name in _all and _all[name].function.__code__.co_filename != function.__code__.co_filename:
            raise ValueError(f"two reactions are called {name}")
        _all[name] = Reaction(name, pattern, function, writes, many, catch_up)
        return function

    return register


def every_change(function: Callable[[Tx, list[Change]], Awaitable[None]]) -> Callable[[Tx, list[Change]], Awaitable[None]]:
    """Runs the function for every change of every service: a batch of many tenants at once, each stream in its order.

    It runs as the service's bulk role, in the transaction that moves the positions. That role writes what the service keeps
    about others and nothing else, sees every tenant of it, and locks no stream, so that nothing published can be written. The
    function is never parked: a stream it fails on stays behind, is logged, and is sent again.
    """
    service = function.__module__.split(".")[1]
    _followers[f"{service}.{function.__name__}"] = Follower(f"{service}.{function.__name__}", function)
    return function


def followers_of(service: str) -> list[Follower]:
    return [f for f in _followers.values() if f.service == service]


def reactions_of(service: str) -> list[Reaction]:
    """The reactions registered by the modules of a service, in order of their definition."""
    return [r for r in _all.values() if r.service == service]


async def activate(database: Database, reactions: list[Reaction]) -> dict[str, datetime]:
    """Since when each of these reactions acts; those that are new act from now on."""
    async with database.transaction() as tx:
        await tx.run("SELECT activate($1)", [r.name for r in reactions])
        return {r["reaction"]: r["since"] for r in await tx.records("SELECT reaction, since FROM activations")}


def sources_of(reactions: list[Reaction]) -> dict[str, set[str]]:
    """The services reacted to, with the kinds of stream that matter of each."""
    sources: dict[str, set[str]] = {}
    for r in reactions:
        kinds = r.pattern.row.stream
        sources.setdefault(r.pattern.row.owner(), set()).update((kinds,) if isinstance(kinds, str) else kinds)
    return sources


__all__ = ["Follower", "Reaction", "Row", "activate", "every_change", "followers_of", "on", "reactions_of", "sources_of"]
