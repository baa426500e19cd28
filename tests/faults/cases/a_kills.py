"""Processes that end without a word."""

import asyncio
import signal

from deploy.plan import SERVICES
from tests.faults.registry import Harm, case
from tests.faults.world import World

EVERYTHING = (*SERVICES, "agent-local", "kafka", "connect", "mail", "stripe")


def _kill(*names: str, number: int = signal.SIGKILL) -> Harm:
    async def harm(world: World) -> None:
        await world.lab.kill(*names, number=number)

    return harm


for _name in (*SERVICES, "agent-local", "kafka", "connect", "postgres", "dataplane-local", "mail", "stripe"):
    case(f"kill {_name}", selected=_name in ("kafka", "connect", "postgres"))(_kill(_name))
for _name in ("postgres", "dataplane-local"):
    case(f"stop {_name} -m immediate")(_kill(_name, number=signal.SIGQUIT))
case("kill all consumers at once", selected=True)(_kill(*SERVICES, "agent-local"))
case("kill everything but the databases")(_kill(*EVERYTHING))


@case("kill postgres again during its recovery")
async def kill_postgres_in_recovery(world: World) -> None:
    pid = world.lab.mesh.kill("postgres")
    await world.lab.until(lambda: world.lab.mesh.pid("postgres") not in (None, pid), 30, "postgres to start again")
    await asyncio.sleep(0.15)
    await world.lab.kill("postgres")


@case("kill the supervisor, then a service and the broker")
async def kill_the_supervisor(world: World) -> None:
    """Nobody restarts anything until the next ``mesh up``."""
    mesh = world.lab.mesh
    await world.lab.kill("supervisor")
    await world.lab.kill("org", "kafka")
    await asyncio.sleep(3)
    await asyncio.to_thread(mesh.start, mesh.state.root)


@case("kill one of two replicas")
async def kill_one_of_two(world: World) -> None:
    """The survivor takes over: the killed one stays down for ten seconds, in which all that was in flight goes on."""
    twins = ("org", "billing", "notification", "provisioning", "console")
    async with world.lab.replicas(*twins), world.lab.down(*(f"{name}-2" for name in twins)):
        await asyncio.sleep(10)


@case("zombies: consumers stopped beyond their session and lease, then continued")
async def zombies(world: World) -> None:
    """Their successors have done the work meanwhile."""
    twins = ("org", "billing", "notification", "provisioning", "console")
    stopped = [f"{name}-2" for name in twins]
    async with world.lab.replicas(*twins):
        await world.lab.kill(*stopped, number=signal.SIGSTOP)
        try:
            await asyncio.sleep(35)
        finally:
            await world.lab.kill(*stopped, number=signal.SIGCONT)
        await asyncio.sleep(5)
