"""Processes that outlive whoever started them: how they are started, recognized and ended."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from deploy.state import CHECKOUT, State, write_atomically

MARK = "MESH_PROCESS_OF"
"""In the environment of every process of a mesh: the state folder it belongs to."""

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "MESH_CACHE", "XDG_CACHE_HOME", "SSL_CERT_FILE", "JAVA_TOOL_OPTIONS")
_CLOCK_SLACK = 2.0  # seconds; a start time is computed from the wall clock, which may have been set meanwhile


@dataclass(frozen=True)
class Command:
    """One process to run. ``environment`` is all it is given besides the harmless variables of the caller."""

    name: str
    argv: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: int | None = None
    folder: Path = CHECKOUT

    @property
    def fingerprint(self) -> str:
        """Equal for equal commands. Options of the Java machine do not count: they tune, and may differ from start to start."""
        words = [word for word in self.argv if not word.startswith("-X")]
        return hashlib.sha256(json.dumps([words, dict(self.environment)]).encode()).hexdigest()


@dataclass(frozen=True)
class Running:
    """A process that was started under ``name``; a recycled pid is told apart by its start time."""

    name: str
    pid: int
    started: float
    fingerprint: str = ""

    @classmethod
    def recorded(cls, state: State, name: str) -> "Running | None":
        """Who runs under this name now, if anybody."""
        try:
            running = cls(name, **json.loads(state.record(name).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return running if running.alive else None

    @property
    def process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < _CLOCK_SLACK
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    @property
    def alive(self) -> bool:
        return self.process is not None

    def signal(self, number: int) -> None:
        """To the process and the group it leads."""
        if self.alive:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                return
            except PermissionError:  # not the leader of its group
                os.kill(self.pid, number)

    async def ended(self) -> None:
        """Wait until it is gone, child of ours or not."""
        try:
            handle = os.pidfd_open(self.pid)
        except (OSError, AttributeError):
            while self.alive:  # noqa: ASYNC110 - no event tells it on this system
                await asyncio.sleep(0.2)
            return
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(handle, gone.set)
        try:
            if self.alive:
                await gone.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)


def start(state: State, command: Command) -> Running:
    """Start it in a session of its own, its output in its log, and write down who it is."""
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    environment |= {**command.environment, MARK: str(state.root), "PYTHONUNBUFFERED": "1"}
    with state.log(command.name).open("ab") as log:
        process = subprocess.Popen(
            command.argv, env=environment, cwd=command.folder, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            user=command.user, group=command.user, extra_groups=None if command.user is None else [],
        )  # fmt: skip
    _children[process.pid] = process
    return _record(state, Running(command.name, process.pid, psutil.Process(process.pid).create_time(), command.fingerprint))


def record_myself(state: State, name: str) -> None:
    _record(state, Running(name, os.getpid(), psutil.Process().create_time()))


def _record(state: State, running: Running) -> Running:
    known = {"pid": running.pid, "started": running.started, "fingerprint": running.fingerprint}
    write_atomically(state.record(running.name), json.dumps(known))
    return running


_children: dict[int, "subprocess.Popen[bytes]"] = {}
"""Kept so that ended children can be reaped."""


def reap(running: Running) -> int | None:
    """The exit code of a child that ended; None when it was not our child or still runs."""
    process = _children.get(running.pid)
    code = process.poll() if process else None
    if code is not None:
        del _children[running.pid]
    return code


def stop(running: Iterable[Running], number: int = signal.SIGTERM, grace: float = 8.0) -> None:
    """Ask all of them to end, and kill what has not after ``grace`` seconds."""
    remaining = [one for one in running if one.alive]
    for one in remaining:
        one.signal(number)
    deadline = time.monotonic() + grace
    while remaining and time.monotonic() < deadline:
        time.sleep(0.03)
        for one in remaining:
            reap(one)
        remaining = [one for one in remaining if one.alive]
    for one in remaining:
        one.signal(signal.SIGKILL)


def recorded(state: State) -> dict[str, Running]:
    """Everything that runs under a name in this mesh."""
    names = [path.stem for path in state.record("x").parent.glob("*.json")]
    return {name: running for name in names if (running := Running.recorded(state, name))}


def strays(state: State) -> list[psutil.Process]:
    """Processes of this mesh without a record: started in the moment of a crash, or orphans of a killed server."""
    return [process for process in psutil.process_iter() if process.pid != os.getpid() and _belongs(process, state)]


def _belongs(process: psutil.Process, state: State) -> bool:
    try:
        if process.environ().get(MARK) == str(state.root):
            return True
        # Postgres writes its title over its environment, but works inside of its data folder.
        return Path(process.cwd()).is_relative_to(state.postgres_data)
    except (psutil.Error, OSError):
        return False
