"""The network between two parts is cut, slow, or resets connections: through a proxy that stands between them."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import requests

from deploy import connect, process
from deploy.kafka import Broker
from deploy.plan import HOST, SERVICES
from deploy.state import write_atomically
from tests.faults.proxy import Proxy
from tests.faults.registry import Harm, NeverHit, case
from tests.faults.world import World

Trouble = Callable[[Proxy], Awaitable[None]]
Way = Callable[[World, Trouble], Awaitable[None]]


async def _cut(proxy: Proxy) -> None:
    async with proxy.cut():
        await asyncio.sleep(15)


async def _slow(proxy: Proxy) -> None:
    proxy.delay = 0.2
    await asyncio.sleep(20)
    proxy.delay = 0.0


async def _resetting(proxy: Proxy) -> None:
    proxy.resets = 0.01
    await asyncio.sleep(20)
    proxy.resets = 0.0


def _with(variable: str, old: object, new: object) -> Callable[[process.Command], process.Command]:
    def change(command: process.Command) -> process.Command:
        value = command.environment[variable]
        return replace(command, environment={**command.environment, variable: value.replace(str(old), str(new))})

    return change


async def _harmed(proxy: Proxy, trouble: Trouble) -> None:
    before = proxy.passed
    await trouble(proxy)
    await asyncio.sleep(3)
    if proxy.passed == before:
        raise NeverHit("nothing went through the proxy")


async def services_and_postgres(world: World, trouble: Trouble) -> None:
    port = world.lab.mesh.plan.ports["postgres"]
    async with Proxy.before(port) as proxy, world.lab.otherwise(SERVICES, _with("DATABASE_URL", f":{port}", f":{proxy.port}")):
        await _harmed(proxy, trouble)


async def services_and_kafka(world: World, trouble: Trouble) -> None:
    await _kafka_clients(world, SERVICES, trouble)


async def agent_and_kafka(world: World, trouble: Trouble) -> None:
    await _kafka_clients(world, ("agent-local",), trouble)


async def _kafka_clients(world: World, names: tuple[str, ...], trouble: Trouble) -> None:
    """The broker gets a second door, which it names to whoever comes through the proxy."""
    (inner,) = _free_ports(1)
    async with Proxy.before(inner) as proxy, _second_door(world, inner, proxy.port):
        port = world.lab.mesh.plan.ports["kafka"]
        async with world.lab.otherwise(names, _with("KAFKA_BOOTSTRAP", f":{port}", f":{proxy.port}")):
            await _harmed(proxy, trouble)


def _free_ports(count: int) -> list[int]:
    from deploy.plan import is_free  # the one use of it here

    return list(itertools.islice((p for p in range(18400, 19400) if is_free(p)), count))


@contextlib.asynccontextmanager
async def _second_door(world: World, inner: int, outer: int) -> AsyncIterator[None]:
    state, broker = world.lab.mesh.state, Broker.of(world.lab.mesh.state, world.lab.mesh.plan)
    file = state.rendered("kafka-two-doors.properties")
    text = state.rendered("kafka.properties").read_text()
    text = text.replace(",CONTROLLER://", f",PROXY://{HOST}:{inner},CONTROLLER://", 1)
    text = text.replace(f"advertised.listeners=CLIENT://{HOST}:{broker.port}", f"advertised.listeners=CLIENT://{HOST}:{broker.port},PROXY://{HOST}:{outer}")
    text = text.replace("CLIENT:SASL_PLAINTEXT", "CLIENT:SASL_PLAINTEXT,PROXY:SASL_PLAINTEXT")
    text += "".join(line.replace("listener.name.client", "listener.name.proxy") + "\n" for line in text.splitlines() if line.startswith("listener.name.client"))
    write_atomically(file, text)

    def change(command: process.Command) -> process.Command:
        return replace(command, argv=[*command.argv[:-1], str(file)])

    async with world.lab.otherwise(("kafka",), change):
        yield


async def connect_and_postgres(world: World, trouble: Trouble) -> None:
    """The supervisor would put the connector right again, so it stands still meanwhile."""
    mesh = world.lab.mesh
    worker, port = connect.Worker.of(mesh.state, mesh.plan), mesh.plan.ports["postgres"]
    async with Proxy.before(port) as proxy:
        await world.lab.kill("supervisor")
        try:
            await asyncio.to_thread(_move_connector, worker, proxy.port)
            await asyncio.sleep(3)
            await _harmed(proxy, trouble)
        finally:
            await asyncio.to_thread(mesh.start, mesh.state.root)


def _move_connector(worker: connect.Worker, port: int) -> None:
    url, auth = f"{worker.url}/connectors/mesh-changes/config", (connect.USER, worker.password)
    config = requests.get(url, auth=auth, timeout=10).json()
    requests.put(url, json=config | {"database.port": str(port)}, auth=auth, timeout=10).raise_for_status()


def _case(way: Way, trouble: Trouble) -> Harm:
    async def harm(world: World) -> None:
        await way(world, trouble)

    return harm


for _way in (services_and_postgres, services_and_kafka, connect_and_postgres, agent_and_kafka):
    for _trouble in (_cut, _slow, _resetting):
        case(f"network: {_way.__name__.replace('_', ' ')} {_trouble.__name__.strip('_')}")(_case(_way, _trouble))
