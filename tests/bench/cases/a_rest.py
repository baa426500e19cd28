"""Starting, and doing nothing."""

import asyncio
import shutil
import tempfile
import time
from pathlib import Path

from deploy.stack import Mesh
from tests.bench.meshes import a_mesh, memory, work
from tests.bench.registry import Bench, case


@case("start")
async def start(bench: Bench) -> None:
    """``mesh up`` without any state, and on the state of an earlier one; packages and jars are in the cache."""
    for _ in range(1 if bench.quick else 5):
        folder = Path(tempfile.mkdtemp(prefix="mesh bench "))
        try:
            bench.saw("mesh up, no state", "s", await asyncio.to_thread(_up, folder), at_most=60)
            await asyncio.to_thread(Mesh.at(folder).stop)
            bench.saw("mesh up, kept state", "s", await asyncio.to_thread(_up, folder), at_most=12)
        finally:
            await asyncio.to_thread(Mesh.at(folder).reset)
            shutil.rmtree(folder, ignore_errors=True)


def _up(folder: Path) -> float:
    began = time.monotonic()
    Mesh.start(folder)
    return time.monotonic() - began


@case("idle")
async def idle(bench: Bench) -> None:
    """The whole mesh with nothing to do, two minutes after its start: Java compiles what it uses for so long."""
    async with a_mesh() as mesh:
        await asyncio.sleep(10 if bench.quick else 120)
        for _ in range(1 if bench.quick else 3):
            spent = await work(mesh.state, 10 if bench.quick else 30)
            used = memory(mesh.state)
            bench.saw("memory (sum of PSS)", "MB", sum(used.values()), at_most=1500)
            bench.saw("processor", "% of a core", sum(spent.values()), at_most=40)
            bench.details.setdefault("runs", []).append({"pss_mb": used, "percent_of_a_core": spent})
        for name, percent in spent.items():
            bench.saw(f"  {name}: processor", "% of a core", percent)
            bench.saw(f"  {name}: memory", "MB", used.get(name, 0))
