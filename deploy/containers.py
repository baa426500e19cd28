"""The mesh in containers: what docker-compose.yml says, made by what also makes the local stack, and the passwords it asks for."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy import connect, java, kafka, topics
from deploy.connect import Worker
from deploy.databases import Databases
from deploy.environment import Environment
from deploy.errors import MeshError
from deploy.kafka import Broker
from deploy.plan import DEFAULT_PORT_BASE, HOST, Plan, with_ports
from deploy.postgres import INITDB, Server, control_plane, data_plane
from deploy.setup import HEALTHY
from deploy.state import State, write_atomically

IMAGES = {
    "postgres": "postgres:18.6-trixie",
    "kafka": "apache/kafka:4.3.1",
    "connect": "quay.io/debezium/connect:3.6.3.Final",
}
OURS = "saas-mesh:local"
HOME = Path("/var/lib/mesh")
"""The state folder inside of every container."""

PASSED_ON = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_RESOURCE_ATTRIBUTES")
"""Variables of whoever runs the engine that go on to the services and agents, where they are set."""
PASSED_ON_TO_SERVICES = (*PASSED_ON, "LOG_LEVEL", "RATE_LIMIT_PER_MINUTE")

_OUTWARD = {"extra_hosts": ["host.docker.internal:host-gateway"]}
"""By this name a container reaches the machine around it: the collector of its traces may be there."""
_KAFKA_INSIDE = DEFAULT_PORT_BASE + 24
_KAFKA_DATA = Path("/var/lib/kafka/data")
_CONNECT_HOME = Path("/kafka")
_HEADER = "# Passwords of docker-compose.yml, written by: make containers. They belong to its volumes.\n"

Part = dict[str, Any]


def outside() -> Plan:
    """The mesh as this machine sees it: every door is published on loopback, at the default port of the local stack."""
    plan = with_ports(Plan(), DEFAULT_PORT_BASE)
    return plan.model_copy(update={"hosts": dict.fromkeys(plan.ports, HOST)})


def inside() -> Plan:
    """The mesh as its containers see it: each is reached by its name."""
    plan = outside()
    ports = {**plan.ports, "kafka": _KAFKA_INSIDE, kafka.OUTSIDE: plan.ports["kafka"]}
    hosts = {**{name: name for name in plan.ports}, "smtp": "mail", "kafka-controller": "kafka"}
    return plan.model_copy(update={"ports": ports, "hosts": hosts})


def variable(secret: str) -> str:
    """``kafka:agent-local`` → ``MESH_KAFKA_AGENT_LOCAL``."""
    return "MESH_" + re.sub(r"\W", "_", secret).upper()


@dataclass(frozen=True)
class Variables(State):
    """A state folder that is not there yet: instead of a password it tells the variable that will hold it."""

    asked: set[str] = field(default_factory=set)

    def secret(self, name: str) -> str:
        self.asked.add(name)
        return f"${{{variable(name)}}}"

    def digest(self, name: str) -> str:
        self.asked.add(name)
        return f"${{{variable(name)}_SHA256}}"


@dataclass(frozen=True)
class Compose:
    """The parts of docker-compose.yml."""

    state: Variables = field(default_factory=lambda: Variables(HOME))
    plan: Plan = field(default_factory=inside)
    contents: dict[str, str] = field(default_factory=dict)
    """Files that are given to containers, by name: filled while the parts are made."""

    def document(self) -> Part:
        services = {**self._bus(), **self._doubles(), **self._services(), **self._agents()}
        services |= self._keepers()  # the last: they are given every password that the others have
        volumes = sorted(volume.partition(":")[0] for part in services.values() for volume in part.get("volumes", []))
        configs = {name: {"content": text} for name, text in self.contents.items()}
        return {"name": "saas-mesh", "services": services, "configs": configs, "volumes": {name: {} for name in volumes}}

    def _bus(self) -> dict[str, Part]:
        planes = [data_plane(self.state, self.plan, plane) for plane in self.plan.data_planes]
        servers = {server.name: self._server(server) for server in [control_plane(self.state, self.plan), *planes]}
        return {**servers, kafka.NAME: self._broker(Broker.of(self.state, self.plan)), connect.NAME: self._worker(Worker.of(self.state, self.plan))}

    def _server(self, server: Server) -> Part:
        return {
            "image": IMAGES["postgres"],
            "command": ["postgres", *server.options(listen_addresses="*")],
            "environment": {"POSTGRES_PASSWORD": server.password, "POSTGRES_INITDB_ARGS": " ".join(INITDB)},
            "volumes": [f"{server.name}:/var/lib/postgresql"],
            "shm_size": "128mb",
            # While it is being set up the server listens on no address, so this waits for the real one.
            "healthcheck": _health("CMD", "pg_isready", "-q", "-h", HOST, "-p", str(server.port)),
            **self._door(server.name), **_kept(),
        }  # fmt: skip

    def _broker(self, broker: Broker) -> Part:
        properties, format_once = self.state.rendered("kafka.properties"), self.state.rendered("kafka-format.args")
        arguments = [*broker.format_arguments(properties), "--ignore-formatted"]
        files = {properties: broker.properties(_KAFKA_DATA), format_once: java.argument_file(kafka.FORMAT, arguments)}
        start = f"java -cp '/opt/kafka/libs/*' @{format_once} && exec /opt/kafka/bin/kafka-server-start.sh {properties}"
        return {
            "image": IMAGES["kafka"],
            "hostname": broker.host,
            "command": ["bash", "-c", start],
            "environment": {"KAFKA_HEAP_OPTS": " ".join(kafka.HEAP)},
            "configs": self._files(files),
            "volumes": [f"{kafka.NAME}:{_KAFKA_DATA}"],
            "healthcheck": _health("CMD", "bash", "-c", f"exec 3<>/dev/tcp/{broker.host}/{broker.port}"),
            **self._door(kafka.OUTSIDE), **_kept(),
        }  # fmt: skip

    def _worker(self, worker: Worker) -> Part:
        files = worker.files(_CONNECT_HOME / "connect")
        ask = f"""sed 's/=/:/; s/.*/user = "&"/' {worker.users} | curl -fsS -o /dev/null -K - {worker.url}/health"""
        logs = f"-Dlog4j2.configurationFile={_CONNECT_HOME}/config.orig/connect-log4j2.yaml"
        return {
            "image": IMAGES["connect"],
            "hostname": worker.host,
            "entrypoint": [f"{_CONNECT_HOME}/bin/connect-distributed.sh", str(worker.configuration)],
            "environment": {"KAFKA_HEAP_OPTS": " ".join(connect.HEAP), "KAFKA_OPTS": worker.login, "KAFKA_LOG4J_OPTS": logs},
            "configs": self._files(files),
            "healthcheck": _health("CMD-SHELL", ask),
            **self._door(connect.NAME), **_after("setup"), **_kept(),
        }  # fmt: skip

    def _doubles(self) -> dict[str, Part]:
        """What stands in for the world outside: mail and cards."""
        environment = self._environment
        mail = _ours("deploy.inbox", environment.mail()) | self._asked("mail") | _keeps("mail") | self._door("mail", "smtp")
        stripe = _ours("deploy.stripe", environment.stripe()) | self._asked("stripe") | _keeps("stripe") | self._door("stripe")
        return {"mail": mail | _kept(), "stripe": stripe | _kept()}

    def _services(self) -> dict[str, Part]:
        return {name: self._service(name) for name in self.plan.services}

    def _service(self, name: str) -> Part:
        part = _ours(f"services.{name}.main", {**self._environment.service(name), **dict.fromkeys(PASSED_ON_TO_SERVICES)})
        return part | _OUTWARD | self._asked(name) | self._door(name) | _after("setup") | _kept()

    def _agents(self) -> dict[str, Part]:
        return {f"agent-{plane}": self._agent(plane) for plane in self.plan.data_planes}

    def _agent(self, plane: str) -> Part:
        part = _ours("services.agent.main", {**self._environment.agent(plane), **dict.fromkeys(PASSED_ON)})
        return part | _OUTWARD | _keeps(f"agent-{plane}") | _after("setup", f"dataplane-{plane}") | _kept()

    def _keepers(self) -> dict[str, Part]:
        """``setup`` makes what has to be there first and ends; ``supervisor`` registers the connectors and repairs what is lost."""
        self._ask_for_everything()
        files = {
            self.state.plan: self.plan.model_dump_json(indent=1),
            HOME / "secrets.json": json.dumps({name: f"${{{variable(name)}:?run: make containers}}" for name in sorted(self.state.asked)}, indent=1),
        }
        both = {"environment": {"MESH_STATE": str(HOME)}, "configs": self._files(files)}
        healthy = _health("CMD-SHELL", f'test -n "$$(find {HOME / HEALTHY} -mmin -1)"')
        return {
            "setup": {**_ours("deploy.setup", {}), **both, **_after("postgres", "kafka")},
            "supervisor": {**_ours("deploy.setup", {}, "keep"), **both, **_after("setup", "connect"), "healthcheck": healthy, **_kept()},
        }

    def _ask_for_everything(self) -> None:
        """Passwords that no other container has: those of the schemas' owners, and the operator's token."""
        Databases(self.state, self.plan).make_secrets()
        broker = Broker.of(self.state, self.plan)
        for user in topics.users(self.plan):
            broker.password(user)

    @property
    def _environment(self) -> Environment:
        return Environment(self.state, self.plan, tracing={})

    def _files(self, files: Mapping[Path, str]) -> list[Part]:
        self.contents.update({path.name: text for path, text in files.items()})
        return [{"source": path.name, "target": str(path)} for path in files]

    def _door(self, *names: str) -> Part:
        return {"ports": [f"{HOST}:{self.plan.ports[name]}:{self.plan.ports[name]}" for name in names]}

    def _asked(self, name: str) -> Part:
        look = f"import urllib.request as r; r.urlopen('http://{HOST}:{self.plan.ports[name]}/readyz', timeout=3)"
        return {"healthcheck": _health("CMD", "python", "-c", look)}


def _ours(module: str, environment: Mapping[str, str | None], *arguments: str) -> Part:
    """A container of our own image. With ``init`` it hears when it is told to stop, whatever its program does about it."""
    return {
        "image": OURS,
        "build": {"context": ".", "dockerfile": "deploy/Dockerfile"},
        "init": True,
        "command": ["python", "-m", module, *arguments],
        "environment": dict(environment),
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }


def _keeps(volume: str) -> Part:
    return {"volumes": [f"{volume}:{HOME}"]}


def _kept() -> Part:
    return {"restart": "unless-stopped"}


def _after(*names: str) -> Part:
    conditions = {"setup": "service_completed_successfully"}
    return {"depends_on": {name: {"condition": conditions.get(name, "service_healthy")} for name in names}}


def _health(*test: str) -> Part:
    return {"test": list(test), "interval": "5s", "timeout": "5s", "retries": 12, "start_period": "60s"}


def passwords(state: State) -> dict[str, str]:
    """Every variable that docker-compose.yml asks for, with what this state folder has for it."""
    compose = Compose()
    text = json.dumps(compose.document())
    known = {variable(name): state.secret(name) for name in compose.state.asked}
    known |= {f"{variable(name)}_SHA256": state.digest(name) for name in compose.state.asked}
    return {name: known[name] for name in sorted(set(_variables(text)))}


def _variables(text: str) -> Iterable[str]:
    return re.findall(r"(?<!\$)\$\{(\w+)", text)


def prepare(state: State, env_file: Path) -> None:
    """Write the passwords for the engine. Those that this state folder has already stay.

    :raises MeshError: when that file is somebody else's.
    """
    if env_file.exists() and not env_file.read_text(encoding="utf-8").startswith(_HEADER):
        raise MeshError(f"{env_file} is there already and was not written by this command.", f"Move it away: mv {env_file.name} {env_file.name}.mine")
    outside().save(state)
    write_atomically(env_file, _HEADER + "".join(f"{name}={value}\n" for name, value in passwords(state).items()))
