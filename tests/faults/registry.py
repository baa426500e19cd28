"""The list of faults: each is a function that does harm to a mesh under load and returns when the harm is over."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.faults.world import World

Harm = Callable[[World], Awaitable[None]]


class NotRun(Exception):
    """This machine lacks what the case needs; the message says what."""


class NeverHit(Exception):
    """The harm was not done: the case shows nothing."""


async def soon(condition: Callable[[], Awaitable[bool]], within: float, what: str) -> None:
    """Waits until the harm shows. Raises NeverHit when it does not in time."""
    try:
        async with asyncio.timeout(within):
            while not await condition():  # noqa: ASYNC110 - it becomes so in other processes
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise NeverHit(f"not within {within:.0f} s: {what}") from None


@dataclass(frozen=True)
class Case:
    """A fault by its name; ``selected`` ones run in ``make test`` as well."""

    name: str
    harm: Harm
    selected: bool = False


CASES: dict[str, Case] = {}


def case(name: str, *, selected: bool = False) -> Callable[[Harm], Harm]:
    """Registers a fault under its name."""

    def register(harm: Harm) -> Harm:
        if name in CASES:
            raise ValueError(f"two cases are called {name}")
        CASES[name] = Case(name, harm, selected)
        return harm

    return register


def together(cases: list[Case]) -> Case:
    """All of these under one load, each as soon as the mesh is healthy again."""

    async def harm(world: World) -> None:
        for one in cases:
            await one.harm(world)
            await world.lab.healthy()

    return Case(", ".join(c.name for c in cases), harm)
