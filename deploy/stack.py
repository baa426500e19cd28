"""The mesh as a Python object: what the ``mesh`` command and the tests start, look at, hurt and stop."""

import json
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from deploy import jars, ports, postgres, process
from deploy.databases import Databases
from deploy.environment import Environment, tracing_variables
from deploy.errors import MeshError
from deploy.kafka import Broker
from deploy.plan import Plan, data_plane_names, with_ports
from deploy.process import Command, Running
from deploy.state import State
from deploy.status import WELL, Document, Observer, parts
from deploy.supervisor import NAME as SUPERVISOR

FREE_PORTS = 0
LOCAL_PARTITIONS = 4
"""On one machine: each partition costs every reader something with every fetch, also while nothing happens."""


@dataclass(frozen=True)
class Step:
    """One thing that happened during a start: ``state`` is ``working``, ``ready``, ``skipped`` or ``failed``."""

    step: str
    state: str
    seconds: float
    detail: str = ""


Report = Callable[[Step], None]


def _not_up(document: Document) -> Iterator[str]:
    return (name for name, part in parts(document) if part["state"] not in WELL)


def _is_supervisor(name: str) -> bool:
    return name == SUPERVISOR


def _is_server(name: str) -> bool:
    """Whether it is a server of Postgres."""
    return name == "postgres" or name.startswith("dataplane-")


@dataclass(frozen=True)
class Mesh:
    """One mesh, running or not, known by its state folder."""

    state: State

    @classmethod
    def at(cls, folder: Path | str) -> "Mesh":
        return cls(State(Path(folder).resolve()))

    @classmethod
    def start(
        cls, folder: Path | str, *, port_base: int | None = FREE_PORTS, services: Iterable[str] | None = None,
        data_planes: int | None = None, databases: int | None = None, replicas: Mapping[str, int] | None = None,
        report: Report = lambda _: None, timeout: float = 180,
    ) -> "Mesh":  # fmt: skip
        """Start a mesh and wait until all of it is ready. ``services=()`` starts the bus and the data planes' servers.

        What is not said stays as it was, or is the default. A mesh that runs already is adjusted: what need not change
        goes on running. One that ran before keeps its data and passwords, and its ports unless others are asked for.

        :raises MeshError: when something does not get ready; what did start stays for a look, until :meth:`stop`.
        """
        mesh = cls.at(folder)
        wishes: dict[str, Any] = {
            "services": None if services is None else tuple(services),
            "data_planes": None if data_planes is None else data_plane_names(data_planes),
            "databases": databases,
            "replicas": None if replicas is None else dict(replicas),
        }
        with mesh._changing():  # noqa: SLF001 - its own
            mesh._launch(mesh._planned({name: wish for name, wish in wishes.items() if wish is not None}, port_base), report)  # noqa: SLF001 - its own
        mesh._follow(report, timeout)  # noqa: SLF001 - its own
        return mesh

    def _planned(self, wishes: dict[str, Any], port_base: int | None) -> Plan:
        known = Plan.load(self.state) if self.state.plan.exists() else None
        plan = (known or Plan(partitions=LOCAL_PARTITIONS)).model_copy(update=wishes)
        if known and known.databases != plan.databases:
            problem = f"This mesh has {known.databases} database(s), which cannot change while it holds data."
            raise MeshError(problem, "Remove it with its data first: mesh reset", code=2)
        if known and known.services and len(plan.data_planes) < len(known.data_planes):
            problem = f"This mesh has {len(known.data_planes)} data planes, and customers' databases live in each of them."
            raise MeshError(problem, "Data planes are only added. To begin anew without any data: mesh reset", code=2)
        return with_ports(plan, None if known and port_base == FREE_PORTS else port_base)

    def _launch(self, plan: Plan, report: Report) -> None:
        """A new supervisor for this plan; it adopts what runs already."""
        supervisor = Running.recorded(self.state, SUPERVISOR)
        process.stop([supervisor] if supervisor else [], signal.SIGKILL)
        ports.check(self.state, plan)
        jars.fetch(lambda here, needed: report(Step("jars", "working", 0.0, f"{here} of {needed}")))
        postgres.prepare_binaries()
        plan.save(self.state)
        self.state.progress.write_text("")
        process.start(self.state, Command(SUPERVISOR, [sys.executable, "-m", "deploy.supervisor", str(self.state.root)], tracing_variables()))

    def _follow(self, report: Report, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for step in self._steps(deadline):
            report(step)
            if step.state == "failed":
                log = step.step if self.state.log(step.step).exists() else SUPERVISOR
                raise MeshError(f"{step.step} did not start: {step.detail}{self._tail(log)}", f"Look closer: mesh logs {log}")
            if step.step == "up":
                return
        missing = ", ".join(_not_up(self.status())) or "nothing any more"
        raise MeshError(f"The mesh was not ready after {timeout:.0f} s; missing: {missing}.", "Look closer: mesh doctor")

    def _steps(self, deadline: float) -> Iterator[Step]:
        with self.state.progress.open() as file:
            while time.monotonic() < deadline:
                line = file.readline()
                if line.endswith("\n"):
                    yield Step(**json.loads(line))
                elif Running.recorded(self.state, SUPERVISOR):
                    file.seek(file.tell() - len(line))
                    time.sleep(0.03)
                else:
                    raise MeshError(f"The supervisor ended.{self._tail(SUPERVISOR)}", f"Its log: mesh logs {SUPERVISOR}")

    def _tail(self, name: str, lines: int = 5) -> str:
        path = self.state.log(name)
        text = path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []
        return "".join(f"\n    {line}" for line in text)

    def stop(self) -> None:
        """End everything, whether its supervisor lives or not. Data stays."""
        with self._changing():
            self._stop()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One ``up``, ``down`` or ``reset`` at a time.

        :raises MeshError: when an engine runs the mesh: then its processes are not ours to start or end.
        """
        with self.state.locked():
            self._refuse_containers()
            yield

    def _refuse_containers(self) -> None:
        if self.state.plan.exists() and self.plan.hosts:
            raise MeshError("This mesh runs in containers.", "Tell their engine: docker compose up, docker compose down", code=2)

    def _stop(self) -> None:
        """Each with time to end well: who writes before what is written to."""
        running = process.recorded(self.state)
        process.stop([one for name, one in running.items() if _is_supervisor(name)], signal.SIGKILL)
        running = process.recorded(self.state)
        servers = [one for name, one in running.items() if _is_server(name)]
        broker = [one for name, one in running.items() if name == "kafka"]
        process.stop([one for one in running.values() if one not in [*servers, *broker]])
        process.stop(broker)
        process.stop(servers, signal.SIGINT)
        self._kill()

    def _kill(self) -> None:
        """End what still runs at once, and forget its records. Only the databases do it themselves: they have shared memory to give back."""
        for names, number in ((_is_supervisor, signal.SIGKILL), (_is_server, signal.SIGQUIT), (bool, signal.SIGKILL)):
            process.stop([one for name, one in process.recorded(self.state).items() if names(name)], number)
        strays = process.strays(self.state)
        for stray in strays:
            with suppress(psutil.NoSuchProcess):
                stray.kill()
        psutil.wait_procs(strays, timeout=5)
        for record in self.state.record("x").parent.glob("*.json"):
            record.unlink()

    @contextmanager
    def without_postgres(self) -> Iterator[bool]:
        """Inside, the control plane's server is down and nobody starts it; everything else runs on. Tells whether the mesh runs.

        The supervisor is away meanwhile: it may be about to start the server, or to make a new one where the data is lost.
        """
        with self._changing():
            running = process.recorded(self.state)
            process.stop([one for name, one in running.items() if name == SUPERVISOR], signal.SIGKILL)
            process.stop([one for name, one in process.recorded(self.state).items() if name == "postgres"], signal.SIGINT)
            yield SUPERVISOR in running
            if SUPERVISOR in running:
                self._launch(self.plan, lambda _: None)

    def reset(self) -> None:
        """End everything and remove all of its data, passwords included."""
        with self._changing():
            self._kill()
            postgres.remove_data(self.state)
        shutil.rmtree(self.state.root)

    def status(self) -> Document:
        """The document of ``mesh status --json --show-secrets``."""
        return Observer.of(self.state).document(secrets=True)

    @property
    def plan(self) -> Plan:
        return Plan.load(self.state)

    @property
    def broker(self) -> Broker:
        return Broker.of(self.state, self.plan)

    @property
    def databases(self) -> Databases:
        return Databases(self.state, self.plan)

    @property
    def environment(self) -> Environment:
        return Environment(self.state, self.plan)

    def pid(self, name: str) -> int | None:
        running = Running.recorded(self.state, name)
        return running.pid if running else None

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a process by its name; its pid. The supervisor starts it again unless it is held.

        :raises MeshError: when nothing runs under that name.
        """
        running = Running.recorded(self.state, name)
        if running is None:
            names = ", ".join(sorted(process.recorded(self.state))) or "nothing"
            raise MeshError(f"No process is called {name}.", f"Running: {names}", code=2)
        running.signal(number)
        return running.pid

    def hold(self, name: str) -> None:
        """From now on the supervisor leaves this process down when it ends."""
        self.state.hold(name).touch()

    def release(self, name: str) -> None:
        self.state.hold(name).unlink(missing_ok=True)

    def restart(self, name: str, timeout: float = 60) -> None:
        """End a process gracefully, and wait until its successor is ready.

        :raises MeshError: before anything ends, when nobody would start it again.
        """
        self._refuse_containers()
        self._check_restart(name)
        number = signal.SIGINT if _is_server(name) else signal.SIGTERM
        self.state.ordered(name).touch()
        pid = self.kill(name, number)
        self.wait(lambda: self.pid(name) not in (None, pid), timeout, f"{name} to start again")
        self.wait_healthy(timeout)

    def _check_restart(self, name: str) -> None:
        running = process.recorded(self.state)
        others = ", ".join(sorted(one for one in running if one != SUPERVISOR))
        if not running:
            raise MeshError("Nothing runs here.", "Start the mesh: mesh up", code=3)
        if SUPERVISOR not in running:
            raise MeshError(f"No supervisor runs: nobody would start {name} again.", "Start one, it adopts what runs: mesh up")
        if name == SUPERVISOR:
            raise MeshError("Nobody would start the supervisor again.", "A new one takes its place, and adopts what runs: mesh up", code=2)
        if name not in running:
            raise MeshError(f"No process is called {name}.", f"Running: {others}", code=2)

    def wait_healthy(self, timeout: float = 60) -> None:
        self.wait(lambda: bool(self.status()["healthy"]), timeout, "the mesh to be healthy", every=0.5)

    def wait(self, condition: Callable[[], bool], timeout: float, what: str, every: float = 0.1) -> None:
        """Until the condition holds; it is looked at ``every`` so many seconds.

        :raises MeshError: when it does not within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise MeshError(f"Waited {timeout:.0f} s for {what}.", "See what is wrong: mesh status")
            time.sleep(every)
