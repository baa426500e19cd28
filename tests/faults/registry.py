"""The list of faults: each is a function that does harm to a mesh under load and returns when the harm is over."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.faults.world import World

Harm = Callable[[World], Awaitable[None]]


class NotRun(Exception):
    """This machine lacks what the case needs; the message says what."""


class NeverHit(Exception):
    """The harm was not done: the case shows nothing."""


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
