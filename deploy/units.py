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


def _nothing() -> None:
    """A unit without preparations."""


@dataclass(frozen=True)
class Unit:
    """One supervised process.

    ``needs`` are the milestones (ready units, finished chores) it waits for before a start. ``prepare`` runs before
    every start and answers true when what the unit kept is new: then the milestones ``resets`` are lost, and reached
    again. ``alive`` is asked while it runs: one that answers no for long is started again.
    """

    name: str
    needs: tuple[str, ...]
    command: Callable[[], Command]
    ready: Callable[[], Awaitable[bool]]
    alive: Callable[[], Awaitable[bool]]
    prepare: Callable[[], bool | None] = _nothing
    resets: tuple[str, ...] = ()


def units(state: State, plan: Plan) -> Iterator[Unit]:
    """Everything that runs in this mesh. A mesh without services is the bus and the data planes' servers."""
    yield from _bus(state, plan)
    if not plan.services:
        return
    environment = Environment(state, plan)
    yield _python("mail", "deploy.inbox", environment.mail(), environment.url("mail"))
    yield _python("stripe", "deploy.stripe", environment.stripe(), environment.url("stripe"))
    for service in plan.services:
        if has_main(service):
            for process in plan.processes_of(service):
                needs, url = ("databases", "topics"), environment.url(process)
                yield _python(process, f"services.{service}.main", environment.service(process) | {"KAFKA_INSTANCE": process}, url, needs)
    if has_main("agent"):
        for plane in plan.data_planes:
            needs = (f"dataplane-{plane}", "topics")
            yield _python(f"agent-{plane}", "services.agent.main", environment.agent(plane), None, needs)


def has_main(service: str) -> bool:
    return (CHECKOUT / "services" / service / "main.py").exists()


def _bus(state: State, plan: Plan) -> Iterator[Unit]:
    broker, worker = kafka.Broker.of(state, plan), connect.Worker.of(state, plan)
    admin = broker.admin()

    async def answers() -> bool:
        return await asyncio.to_thread(kafka.answers, admin)

    async def healthy() -> bool:
        return await asyncio.to_thread(worker.registry.healthy)

    async def excused() -> bool:
        """Without Kafka no worker is healthy."""
        return await healthy() or not await answers()

    yield Unit(kafka.NAME, (), broker.command, answers, answers, broker.prepare, resets=("users", "topics", connect.NAME))
    yield _server(control_plane(state, plan))
    yield Unit(connect.NAME, ("users",), worker.command, healthy, excused, worker.prepare)
    for plane in plan.data_planes:
        yield _server(data_plane(state, plan, plane))


def _server(server: Server) -> Unit:
    return Unit(server.name, (), server.command, server.ready, server.ready, server.prepare)


def _python(name: str, module: str, environment: dict[str, str], url: str | None, needs: tuple[str, ...] = ()) -> Unit:
    """``url`` is the folder of its doors ``readyz`` and ``healthz``; without them, running is being ready."""
    argv = [sys.executable, "-m", module]
    ready, alive = (partial(_answers, url and f"{url}/{door}") for door in ("readyz", "healthz"))
    return Unit(name, needs, lambda: Command(name, argv, environment), ready, alive)


async def _answers(url: str | None) -> bool:
    if url is None:
        return True
    try:
        return (await asyncio.to_thread(requests.get, url, timeout=2)).ok
    except requests.RequestException:
        return False
