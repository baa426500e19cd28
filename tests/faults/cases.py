"""The faults: each is a function that does harm to a mesh under load and returns when the harm is over."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from deploy.plan import SERVICES
from tests.faults.lab import Lab

Harm = Callable[[Lab], Awaitable[None]]


class NotRun(Exception):
    """This machine lacks what the case needs; the message says what."""


@dataclass(frozen=True)
class Case:
    """``seconds`` is what a selection of cases is budgeted by; ``selected`` ones run in ``make test``."""

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


def _kill(*names: str) -> Harm:
    async def harm(lab: Lab) -> None:
        await lab.kill(*names)

    return harm


for _name in (*SERVICES, "agent-local", "kafka", "connect", "postgres", "dataplane-local", "mail", "stripe"):
    case(f"kill {_name}", selected=_name in ("kafka", "postgres"))(_kill(_name))
case("kill all consumers at once", selected=True)(_kill(*SERVICES, "agent-local"))
case("kill everything but the databases")(_kill(*SERVICES, "agent-local", "kafka", "connect", "mail", "stripe"))


@case("stop postgres at once (-m immediate)")
async def stop_postgres_at_once(lab: Lab) -> None:
    await lab.kill("postgres", number=signal.SIGQUIT)


@case("stop the data plane's postgres at once (-m immediate)")
async def stop_data_plane_at_once(lab: Lab) -> None:
    await lab.kill("dataplane-local", number=signal.SIGQUIT)


@case("kill postgres again during its recovery")
async def kill_postgres_in_recovery(lab: Lab) -> None:
    pid = lab.mesh.kill("postgres")
    await lab.until(lambda: lab.mesh.pid("postgres") not in (None, pid), 30, "postgres to start again")
    await asyncio.sleep(0.15)
    await lab.kill("postgres")


@case("kill the supervisor, then a service")
async def kill_the_supervisor(lab: Lab) -> None:
    """Nobody restarts anything until the next ``mesh up``."""
    await lab.kill("supervisor")
    await lab.kill("org", "kafka")
    await asyncio.sleep(3)
    await asyncio.to_thread(lab.mesh.start, lab.mesh.state.root)
