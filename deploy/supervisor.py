"""The process that keeps a mesh running: starts everything in order, restarts what ends, repairs what goes missing."""

import asyncio
import json
import logging
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import asyncpg
import requests
from confluent_kafka import KafkaException

from deploy import connect, java, kafka, process
from deploy.chores import CONNECTORS_EVERY, KAFKA_EVERY, SLOTS_EVERY, Chores
from deploy.plan import Plan
from deploy.process import Running
from deploy.state import State
from deploy.units import Unit, has_main, units

NAME = "supervisor"
_POLL = 0.05
_LONGEST_RETRY = 5.0
_LOG_LIMIT = 10 * 1024 * 1024  # bytes; one older log of that size is kept beside it
_STEADY = 30.0  # seconds of running after which the next end counts as a first one
_LONGEST_PAUSE = 15.0
_PATIENCE = 60.0  # seconds that a process may take until it is ready, or may not answer
_LIFE_EVERY = 5.0  # seconds between questions whether it lives
_TOLERATED = 3  # failures of a start before ``mesh up`` gives up waiting

_USUAL = (requests.RequestException, KafkaException, asyncpg.PostgresError, OSError)
"""What a chore meets while something else restarts; its line says enough."""

log = logging.getLogger("mesh.supervisor")


def pause(failures: int) -> float:
    """Seconds before the next start: the first restart is immediate, then 0.5, 1, 2, … up to 15."""
    return 0.0 if failures <= 1 else min(_LONGEST_PAUSE, 0.5 * 2 ** (failures - 2))


@dataclass
class Supervisor:
    state: State
    plan: Plan
    began: float = field(default_factory=time.monotonic)
    reached: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))

    async def run(self) -> None:
        """Until it is ended. What it started goes on running without it, and the next supervisor adopts it."""
        table = {unit.name: unit for unit in units(self.state, self.plan)}
        running = process.recorded(self.state)
        process.stop(one for name, one in running.items() if name not in (*table, NAME))
        async with asyncio.TaskGroup() as group:
            for unit in table.values():
                group.create_task(self._keep(unit))
            for name, needs, action, every in self._chores():
                group.create_task(self._chore(name, needs, action, every))
            group.create_task(self._housekeep())
            group.create_task(self._announce(table))

    def _chores(self) -> list[tuple[str, tuple[str, ...], Callable[[], Awaitable[str]], float | None]]:
        """Milestones that are not processes: what has to be true in Kafka, Postgres and Connect, again and again."""
        chores = Chores(self.state, self.plan)
        return [
            ("users", ("kafka",), partial(asyncio.to_thread, chores.users), KAFKA_EVERY),
            ("topics", ("kafka",), partial(asyncio.to_thread, chores.topics), KAFKA_EVERY),
            ("databases", ("postgres",), chores.databases, None),
            ("connectors", ("connect", "databases", "topics"), partial(asyncio.to_thread, chores.connectors), CONNECTORS_EVERY),
            ("slots", ("connectors",), chores.slots, SLOTS_EVERY),
        ]

    async def _keep(self, unit: Unit) -> None:
        """One unit: start it or adopt it, wait for its end, and again."""
        failures = 0
        while True:
            for need in unit.needs:
                await self.reached[need].wait()
            await self._not_held(unit.name)
            await asyncio.sleep(pause(failures))
            began = time.monotonic()
            try:
                problem = await self._run(unit)
                self._log_the_end(unit.name, problem)
            except Exception as error:  # whatever it was, the unit is tried again
                log.exception("%s could not be started", unit.name)
                problem = str(error)
            failures = 1 if time.monotonic() - began > _STEADY else failures + 1
            if failures == _TOLERATED and not self.reached[unit.name].is_set():
                self._tell(unit.name, "failed", detail=problem)

    async def _run(self, unit: Unit) -> str:
        """Until the end of its process; why it ended, in words."""
        began = time.monotonic()
        running = await self._start(unit)
        ended = asyncio.create_task(running.ended())
        if await self._until_ready(unit, running):
            self._reach(unit.name, began)
            if await self._stops_answering(unit, ended):
                await asyncio.to_thread(process.stop, [running])
        await ended
        code = process.reap(running)
        return "its exit code is known to an earlier supervisor only" if code is None else f"exit code {code}"

    def _log_the_end(self, name: str, why: str) -> None:
        ordered = self.state.ordered(name)
        log.log(logging.INFO if ordered.exists() else logging.WARNING, "%s ended%s: %s", name, ", as ordered" if ordered.exists() else "", why)
        ordered.unlink(missing_ok=True)

    async def _start(self, unit: Unit) -> Running:
        command = unit.command()
        present = Running.recorded(self.state, unit.name)
        if present and present.fingerprint == command.fingerprint:
            return present
        if present:
            await asyncio.to_thread(process.stop, [present])
        if await asyncio.to_thread(unit.prepare):
            for name in unit.resets:
                self.reached[name].clear()
                await asyncio.to_thread(process.stop, [r for r in [Running.recorded(self.state, name)] if r], signal.SIGKILL)
        return process.start(self.state, unit.command())

    async def _until_ready(self, unit: Unit, running: Running) -> bool:
        """Of the process; false when it ended before that."""
        patience = time.monotonic() + _PATIENCE
        while running.alive:
            if await unit.ready():
                return True
            await asyncio.sleep(_POLL)
            if time.monotonic() > patience and not self.reached[unit.name].is_set():
                patience = float("inf")
                self._tell(unit.name, "working", detail=f"runs, but is not ready after {_PATIENCE:.0f} s")
        return False

    async def _stops_answering(self, unit: Unit, ended: "asyncio.Task[None]") -> bool:
        """Until it ended (false) or hangs (true)."""
        answered = time.monotonic()
        while not ended.done():
            await asyncio.wait([ended], timeout=_LIFE_EVERY)
            if await unit.alive():
                answered = time.monotonic()
            elif time.monotonic() - answered > _PATIENCE:
                log.warning("%s has not answered for %.0f s", unit.name, _PATIENCE)
                return True
        return False

    async def _not_held(self, name: str) -> None:
        while self.state.hold(name).exists():  # noqa: ASYNC110 - another process removes the file
            await asyncio.sleep(_POLL)

    async def _chore(self, name: str, needs: tuple[str, ...], action: Callable[[], Awaitable[str]], every: float | None) -> None:
        for need in needs:
            await self.reached[need].wait()
        failures, began, told = 0, time.monotonic(), ""
        while True:
            try:
                done = await action()
            except Exception as error:
                failures += 1
                if str(error) != told:
                    told = str(error)
                    log.warning("%s: %s", name, error, exc_info=not isinstance(error, _USUAL))
                if failures == _TOLERATED and not self.reached[name].is_set():
                    self._tell(name, "failed", detail=str(error))
                await asyncio.sleep(min(_LONGEST_RETRY, 0.2 * failures))
                continue
            failures, told = 0, ""
            if done:
                log.info("%s: %s", name, done)
            self._reach(name, began)
            if every is None:
                return
            await self._rest(name, every)

    async def _rest(self, name: str, seconds: float) -> None:
        """Until it is time again, or the milestone was lost."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.reached[name].is_set():  # noqa: ASYNC110 - an event cannot wait for its end
            await asyncio.sleep(0.25)

    def _reach(self, name: str, began: float) -> None:
        if not self.reached[name].is_set():
            self.reached[name].set()
            self._tell(name, "ready", time.monotonic() - began)

    async def _announce(self, table: dict[str, Unit]) -> None:
        for service in self.plan.services:
            if not has_main(service):
                self._tell(service, "skipped", detail=f"services/{service}/main.py does not exist yet")
        for name in [*table, *(name for name, *_ in self._chores())]:
            await self.reached[name].wait()
        self._tell("up", "ready", time.monotonic() - self.began)
        await asyncio.to_thread(java.build_archive, self.state, [kafka.NAME, connect.NAME])

    async def _housekeep(self) -> None:
        """Logs are capped by copying: a process keeps its open file whatever happens to the supervisor."""
        while True:
            await asyncio.sleep(10)
            for path in self.state.log("x").parent.glob("*.log"):
                if path.stat().st_size > _LOG_LIMIT:
                    path.with_suffix(".log.1").write_bytes(path.read_bytes())
                    with path.open("r+b") as file:
                        file.truncate(0)

    def _tell(self, step: str, state: str, seconds: float = 0.0, detail: str = "") -> None:
        """One line of the progress file, which ``mesh up`` follows."""
        event = {"step": step, "state": state, "seconds": round(seconds, 2), "detail": detail}
        with self.state.progress.open("a") as file:
            file.write(json.dumps(event) + "\n")


def main() -> None:
    state = State(Path(sys.argv[1]))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    process.record_myself(state, NAME)
    asyncio.run(Supervisor(state, Plan.load(state)).run())


if __name__ == "__main__":
    main()
