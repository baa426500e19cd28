"""Meshes to measure on, and what their processes cost."""

import asyncio
import shutil
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from deploy import process
from deploy.stack import Mesh
from deploy.state import State


@asynccontextmanager
async def a_mesh(**wishes: Any) -> AsyncIterator[Mesh]:
    """A mesh of its own on free ports, removed at the end. ``services=()`` is the bus with its databases alone."""
    folder = Path(tempfile.mkdtemp(prefix="mesh bench "))
    try:
        yield await asyncio.to_thread(Mesh.start, folder, **wishes)
    finally:
        await asyncio.to_thread(Mesh.at(folder).reset)
        shutil.rmtree(folder, ignore_errors=True)


def processes(state: State) -> dict[str, list[psutil.Process]]:
    """All processes of the mesh by the name they run under; Postgres's backends belong to their server."""
    recorded = {running.pid: name for name, running in process.recorded(state).items()}
    found: dict[str, list[psutil.Process]] = defaultdict(list)
    for pid, name in recorded.items():
        one = psutil.Process(pid)
        found[name].append(one)
        if name != "supervisor":
            found[name] += [child for child in one.children(recursive=True) if child.pid not in recorded]
    return found


def memory(state: State) -> dict[str, float]:
    """Megabytes by name: the sum of PSS, in which memory that processes share counts once."""
    return {name: round(sum(_pss(one.pid) for one in them) / 1024, 1) for name, them in processes(state).items()}


def _pss(pid: int) -> int:
    """In kB; 0 for a process that has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


async def work(state: State, seconds: float) -> dict[str, float]:
    """Percent of one core by name, over so many seconds."""
    before = _spent(state)
    await asyncio.sleep(seconds)
    after = _spent(state)
    return {name: round(100 * (spent - before.get(name, 0.0)) / seconds, 2) for name, spent in after.items()}


def _spent(state: State) -> dict[str, float]:
    """Seconds of processor time, children that have ended included."""
    spent: dict[str, float] = defaultdict(float)
    for name, them in processes(state).items():
        for one in them:
            try:
                times = one.cpu_times()
            except psutil.NoSuchProcess:
                continue
            spent[name] += times.user + times.system
    return spent
