"""The process table of a mesh: what runs, what each waits for, and when it counts as ready."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial

import requests

from deploy import connect, kafka
from deploy.environment import Environment
from deploy.plan import Plan
from deploy.postgres import Server, control_plane, data_plane
from deploy.process import Command
from deploy.state import CHECKOUT, State

BUS = ("postgres", kafka.NAME, connect.NAME)


def _nothing() -> None:
    """A unit without preparations."""


@dataclass(frozen=True)
class Unit:
    """One supervised process.

    ``needs`` are the milestones (ready units, finished tasks) before its first start; ``prepare`` runs before every
    start and answers true when what the unit kept is new, so that the units ``resets`` must start again.
    """

    name: str
    needs: tuple[str, ...]
    command: Callable[[], Command]
    ready: Callable[[], Awaitable[bool]]
    prepare: Callable[[], bool | None] = _nothing
    resets: tuple[str, ...] = ()


def units(state: State, plan: Plan) -> Iterator[Unit]:
    """Everything that runs in this mesh. A mesh without services is the bus and the data planes' servers."""
    yield from _bus(state, plan)
    if not plan.services:
        return
    environment = Environment(state, plan)
    yield _python("mail", "deploy.inbox", environment.mail(), f"{environment.url('mail')}/readyz")
    yield _python("stripe", "deploy.stripe", environment.stripe(), f"{environment.url('stripe')}/readyz")
    for service in plan.services:
        if has_main(service):
            for process in plan.processes_of(service):
                needs, url = ("databases", "topics"), f"{environment.url(process)}/readyz"
                yield _python(process, f"services.{service}.main", environment.service(process), url, needs)
    if has_main("agent"):
        for plane in plan.data_planes:
            needs = (f"dataplane-{plane}", "topics")
            yield _python(f"agent-{plane}", "services.agent.main", environment.agent(plane), None, needs)


def has_main(service: str) -> bool:
    return (CHECKOUT / "services" / service / "main.py").exists()


def _bus(state: State, plan: Plan) -> Iterator[Unit]:
    broker, worker = kafka.Broker.of(state, plan), connect.Worker.of(state, plan)
    admin = broker.admin()
    yield Unit(
        kafka.NAME, (), broker.command, partial(asyncio.to_thread, kafka.answers, admin), broker.prepare,
        resets=(connect.NAME,),
    )  # fmt: skip
    yield _server(control_plane(state, plan))
    yield Unit(
        connect.NAME, ("users",), worker.command, partial(asyncio.to_thread, worker.registry.healthy), worker.prepare
    )
    for plane in plan.data_planes:
        yield _server(data_plane(state, plan, plane))


def _server(server: Server) -> Unit:
    return Unit(server.name, (), server.command, server.ready, server.prepare)


def _python(name: str, module: str, environment: dict[str, str], url: str | None, needs: tuple[str, ...] = ()) -> Unit:
    argv = [sys.executable, "-m", module]
    return Unit(name, needs, lambda: Command(name, argv, environment), partial(_answers, url))


async def _answers(url: str | None) -> bool:
    """Without a door, being alive is being ready."""
    if url is None:
        return True
    try:
        return (await asyncio.to_thread(requests.get, url, timeout=2)).ok
    except requests.RequestException:
        return False
