"""Tells how a mesh is: the document of ``mesh status --json``."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import requests

from deploy import connect, kafka, process
from deploy.connectors import Registry
from deploy.environment import Environment
from deploy.plan import Plan
from deploy.postgres import Server, control_plane, data_plane
from deploy.process import Running
from deploy.state import State
from deploy.units import has_main

Document = dict[str, Any]
WELL = ("up", "missing", "unseen")


@dataclass(frozen=True)
class Observer:
    """Looks at one mesh from outside: at its process records, where its processes are of this machine, and through its doors."""

    state: State
    plan: Plan
    running: dict[str, Running] | None

    @classmethod
    def of(cls, state: State) -> "Observer":
        plan = Plan.load(state)
        return cls(state, plan, None if plan.hosts else process.recorded(state))

    def document(self, secrets: bool = False) -> Document:
        """The status document; with ``secrets`` it holds the administrators' credentials."""
        parts: dict[str, Callable[[], Any]] = {
            "services": self._services,
            "agents": self._agents,
            "kafka": self._kafka,
            "connect": self._connect,
            "postgres": lambda: self._server(control_plane(self.state, self.plan)),
            "data_planes": self._data_planes,
        }
        if self.plan.services:
            parts |= {"mail": self._mail, "stripe": self._stripe}
        with ThreadPoolExecutor(len(parts)) as pool:
            started = {name: pool.submit(part) for name, part in parts.items()}
            document = {name: part.result() for name, part in started.items()}
        document["supervisor"] = {"pid": self._pid("supervisor"), "state": self._state("supervisor", None)}
        if secrets:
            self._add_secrets(document)
        return {"healthy": _healthy(document), **document}

    def _pid(self, name: str) -> int | None:
        return self.running[name].pid if self.running and name in self.running else None

    def _state(self, name: str, answers: Callable[[], bool] | None) -> str:
        """``answers`` asks at its door. What has no door and runs in a container is ``unseen``."""
        if self.running is None:
            return "unseen" if answers is None else ("up" if answers() else "down")
        if name not in self.running:
            return "down"
        return "up" if answers is None or answers() else "starting"

    def _services(self) -> Document:
        if not self.plan.services:
            return {}
        with ThreadPoolExecutor(len(self.plan.services)) as pool:
            return dict(zip(self.plan.services, pool.map(self._service, self.plan.services), strict=True))

    def _service(self, service: str) -> Document:
        names = self.plan.processes_of(service)
        urls = [f"http://{self.plan.address(name)}" for name in names]
        states = [self._state(name, lambda url=url: _ok(f"{url}/readyz")) for name, url in zip(names, urls, strict=True)]  # type: ignore[misc]
        worst = next((state for state in ("down", "starting") if state in states), "up")
        pids = [pid for name in names if (pid := self._pid(name))]
        state = worst if has_main(service) else "missing"
        return {"url": urls[0], "state": state, "pid": self._pid(service), "pids": pids, "urls": urls}

    def _agents(self) -> list[Document]:
        if not self.plan.services or not has_main("agent"):
            return []
        names = {plane: f"agent-{plane}" for plane in self.plan.data_planes}
        return [{"id": plane, "pid": self._pid(name), "state": self._state(name, None)} for plane, name in names.items()]

    def _kafka(self) -> Document:
        broker = kafka.Broker.of(self.state, self.plan)
        state = self._state(kafka.NAME, lambda: kafka.answers(broker.admin()))
        return {"bootstrap": broker.bootstrap, "pid": self._pid(kafka.NAME), "state": state}

    def _connect(self) -> Document:
        worker = connect.Worker.of(self.state, self.plan)
        state = self._state(connect.NAME, worker.registry.healthy)
        names = [f"{database}-changes" for database in self.plan.placement]
        connectors = {name: _state_of(worker.registry, name) if state == "up" else "UNKNOWN" for name in names}
        return {"url": worker.url, "pid": self._pid(connect.NAME), "state": state, "connectors": connectors}

    def _server(self, server: Server) -> Document:
        state = self._state(server.name, lambda: asyncio.run(server.ready()))
        return {"host": server.host, "port": server.port, "pid": self._pid(server.name), "state": state}

    def _data_planes(self) -> list[Document]:
        return [{"id": plane, **self._server(data_plane(self.state, self.plan, plane))} for plane in self.plan.data_planes]

    def _mail(self) -> Document:
        url = f"http://{self.plan.address('mail')}"
        state = self._state("mail", lambda: _ok(f"{url}/readyz"))
        return {"smtp": self.plan.address("smtp"), "url": f"{url}/messages", "pid": self._pid("mail"), "state": state}

    def _stripe(self) -> Document:
        url = f"http://{self.plan.address('stripe')}"
        return {"url": url, "pid": self._pid("stripe"), "state": self._state("stripe", lambda: _ok(f"{url}/readyz"))}

    def _add_secrets(self, document: Document) -> None:
        worker, environment = connect.Worker.of(self.state, self.plan), Environment(self.state, self.plan)
        document["kafka"]["admin"] = {"username": kafka.ADMIN, "password": worker.broker.password(kafka.ADMIN)}
        document["connect"] |= {"username": connect.USER, "password": worker.password}
        first = next(iter(self.plan.placement))
        document["postgres"]["url"] = control_plane(self.state, self.plan).url(first)
        for plane in document["data_planes"]:
            plane["url"] = data_plane(self.state, self.plan, plane["id"]).url()
        document["operator_token"] = environment.operator_token
        if self.plan.services:
            document["stripe"]["api_key"] = environment.stripe_key


def _state_of(registry: Registry, connector: str) -> str:
    try:
        return registry.state(connector)
    except requests.RequestException:  # it has just ended
        return "UNKNOWN"


def _ok(url: str) -> bool:
    try:
        return requests.get(url, timeout=3).ok
    except requests.RequestException:
        return False


def parts(document: Document) -> Iterator[tuple[str, Document]]:
    """Everything in the document that has a state, by the name of its process."""
    yield from document["services"].items()
    yield from ((f"agent-{agent['id']}", agent) for agent in document["agents"])
    yield from ((f"dataplane-{plane['id']}", plane) for plane in document["data_planes"])
    names = ("postgres", "kafka", "connect", "mail", "stripe", "supervisor")
    yield from ((name, document[name]) for name in names if name in document)


def _healthy(document: Document) -> bool:
    """Everything that can be seen is up and every connector runs. A service that is not written yet counts as healthy."""
    connectors = document["connect"]["connectors"].values()
    return all(part["state"] in WELL for _, part in parts(document)) and set(connectors) == {"RUNNING"}
