"""What one mesh consists of: its services, databases, data planes, replicas and ports."""

import random
import socket
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from deploy.errors import MeshError
from deploy.state import State, write_atomically

SERVICES = ("user", "org", "billing", "notification", "provisioning", "console")
HOST = "127.0.0.1"
DEFAULT_PORT_BASE = 8400
_FREE_PORTS = range(18000, 32000)  # below the range from which systems take ports for outgoing connections

_OFFSETS = {
    "console": 0, "user": 1, "org": 2, "billing": 3, "notification": 4, "provisioning": 5,
    "mail": 10, "smtp": 11, "stripe": 12,
    "postgres": 20, "kafka": 21, "kafka-controller": 22, "connect": 23,
}  # fmt: skip
_DATA_PLANES_OFFSET = 30
_REPLICAS_OFFSET = 50


class Plan(BaseModel):
    """Written by ``mesh up``, read by everything else. ``replicas`` names the services that run more than once."""

    model_config = ConfigDict(frozen=True)

    services: tuple[str, ...] = SERVICES
    data_planes: tuple[str, ...] = ("local",)
    databases: int = 1
    partitions: int = 16
    """Of each topic of changes. Never raised later, since a stream would move to another one; as many replicas of a service share them."""
    replicas: dict[str, int] = {}
    ports: dict[str, int] = {}
    hosts: dict[str, str] = {}
    """Where its doors are reached, by the same names, when an engine runs its processes in containers; else all are on loopback."""

    @classmethod
    def load(cls, state: State) -> "Plan":
        if not state.plan.exists():
            raise MeshError(f"There is no mesh in {state.root}.", "Start one: mesh up", code=3)
        return cls.model_validate_json(state.plan.read_text())

    def save(self, state: State) -> None:
        write_atomically(state.plan, self.model_dump_json(indent=1))

    @property
    def listen(self) -> str:
        """The address that its processes listen on: in a container everybody who may come has to come from outside."""
        return "0.0.0.0" if self.hosts else HOST

    def host(self, name: str) -> str:
        return self.hosts.get(name, HOST)

    def address(self, name: str) -> str:
        """``host:port`` of one of its doors."""
        return f"{self.host(name)}:{self.ports[name]}"

    @property
    def placement(self) -> dict[str, tuple[str, ...]]:
        """Which services live in which database, by the database's name."""
        bounds = [i * len(SERVICES) // self.databases for i in range(self.databases + 1)]
        names = ["mesh", *(f"mesh_{i}" for i in range(2, self.databases + 1))]
        return {name: SERVICES[a:b] for name, a, b in zip(names, bounds, bounds[1:], strict=False)}

    def database_of(self, service: str) -> str:
        return next(name for name, services in self.placement.items() if service in services)

    def processes_of(self, service: str) -> list[str]:
        """The names of the processes of a service: ``org``, ``org-2``, …"""
        count = self.replicas.get(service, 1)
        return [service, *(f"{service}-{i}" for i in range(2, count + 1))]

    def port_names(self) -> dict[str, int]:
        """Every port this plan needs, with its place behind the base."""
        planes = {f"dataplane-{plane}": _DATA_PLANES_OFFSET + i for i, plane in enumerate(self.data_planes)}
        replicas = [name for service in SERVICES for name in self.processes_of(service)[1:]]
        return {**_OFFSETS, **planes, **{name: _REPLICAS_OFFSET + i for i, name in enumerate(replicas)}}


def data_plane_names(count: int) -> tuple[str, ...]:
    return ("local", *(f"local-{i}" for i in range(2, count + 1)))


def with_ports(plan: Plan, base: int | None) -> Plan:
    """The plan with a port for each of its doors.

    ``None`` keeps the ports it has and adds what is missing behind their base, or the default one, where that is free; 0 takes free ones.
    """
    wanted = plan.port_names()
    known = plan.ports
    if base is None and known:
        spare = iter(_free_ports(len(wanted)))
        base = known["console"]
        ports = {name: known.get(name) or _behind(base, offset, known) or next(spare) for name, offset in wanted.items()}
    elif base == 0:
        ports = dict(zip(wanted, _free_ports(len(wanted)), strict=True))
    else:
        ports = {name: (base or DEFAULT_PORT_BASE) + offset for name, offset in wanted.items()}
    return plan.model_copy(update={"ports": ports})


def _behind(base: int, offset: int, known: dict[str, int]) -> int | None:
    port = base + offset
    return port if port not in known.values() and is_free(port) else None


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in random.sample(_FREE_PORTS, len(_FREE_PORTS)):
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise MeshError("This machine has no free ports left.", "See who holds them: ss -ltnp")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def parse_replicas(values: Iterable[str]) -> dict[str, int]:
    """``["org=2"]`` → ``{"org": 2}``."""
    replicas = {}
    for value in values:
        service, _, count = value.partition("=")
        if service not in SERVICES or not count.isdigit() or int(count) < 1:
            raise MeshError(f"--replicas {value} is not understood.", "Say it like this: --replicas org=2", code=2)
        replicas[service] = int(count)
    return replicas
