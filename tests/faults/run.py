"""``make faults``: every fault under load, judged by one oracle; a table for people, JSON for machines."""

import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.errors import MeshError
from deploy.stack import Mesh
from tests.faults.cases import CASES
from tests.faults.load import KINDS, Flight, Size
from tests.faults.oracle import Verdict
from tests.faults.registry import Case, NeverHit, NotRun
from tests.faults.world import World

LEAST_IN_FLIGHT = 200
CASES_A_MESH = 14
"""A mesh is replaced after so many cases, and after a red one."""
PATIENCE = 120.0
"""Seconds until a mesh that is not steady yet is given up."""
LONGEST = 240.0
"""Seconds that harm may take."""
BEFORE, AFTERWARDS = 3.0, 2.0
"""Seconds that the load goes on before the harm, and after all that was in flight has ended."""


@dataclass
class Result:
    """One line of the table. ``seconds`` from the end of the fault until everything that was in flight had ended and all was healthy."""

    fault: str
    in_flight: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    affected: int = 0
    """So many of them wait for the mesh, or for somebody who answers as soon as the fault is over."""
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    seconds: float | None = None
    spread: dict[str, float] = field(default_factory=dict)
    took: float = 0.0
    """Seconds of the whole case."""
    repeated_mails: int = 0
    not_run: str = ""
    findings: list[str] = field(default_factory=list)

    @property
    def green(self) -> bool:
        return not self.findings

    @property
    def line(self) -> str:
        if self.not_run and self.green:
            return f"{self.fault:<52} not run: {self.not_run}"
        seconds = "never" if self.seconds is None else f"{self.seconds:.1f}"
        state = "ok" if self.green else "RED"
        return f"{self.fault:<52} {self.in_flight:>9} {self.lost:>5} {self.doubled:>8} {self.disordered:>11} {seconds:>8}  {state}"


HEAD = f"{'fault':<52} {'in flight':>9} {'lost':>5} {'doubled':>8} {'disordered':>11} {'seconds':>8}"


async def run_case(world: World, one: Case, least: int = LEAST_IN_FLIGHT, *, last: bool = True) -> Result:
    """Load, fault, recovery, verdict. Unless it is the ``last`` on this mesh, those who take their time over a mail do so until a later one."""
    result, began = Result(one.name), time.monotonic()
    try:
        async with world.load.runs(last=last):
            await asyncio.sleep(BEFORE)
            await world.load.until_in_flight(least)
            counts = world.load.in_flight()
            result.in_flight, result.kinds = counts.total(), dict(counts)
            if counts.total() < least or set(counts) != set(KINDS):
                result.findings.append(f"only {dict(counts)} in flight")
            affected = [f for f in world.load.flights.values() if not f.patient]
            result.affected = len(affected)
            await _do(one, world)
            result.seconds, result.spread = await _until_steady(world, affected)
            await asyncio.sleep(AFTERWARDS)
    except NeverHit as why:
        result.findings.append(f"not hit: {why}")
    except NotRun as why:
        result.not_run = str(why)
    except TimeoutError:
        result.findings.append(f"not everything that was in flight had ended after {PATIENCE:.0f} s")
    except MeshError as why:
        result.findings.append(str(why))
    result.findings += [f"people still wait for {one}" for one in world.load.stuck]
    verdict = await world.oracle.settled()
    _take(result, verdict, verdict.repeated_mails - world.repeated_mails)
    world.repeated_mails = verdict.repeated_mails
    result.took = time.monotonic() - began
    return result


async def _do(one: Case, world: World) -> None:
    bound = asyncio.timeout(LONGEST)
    try:
        async with bound:
            await one.harm(world)
    except TimeoutError as error:
        if not bound.expired():
            raise
        raise NeverHit(f"the harm itself has not ended after {LONGEST:.0f} s") from error


async def _until_steady(world: World, affected: list[Flight]) -> tuple[float, dict[str, float]]:
    """Seconds until the last of them had ended, and until the median, nine tenths and the last of each kind had. No person is waited for any more."""
    began = time.monotonic()
    world.load.hurry()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(f.done.wait() for f in affected))
        await world.lab.healthy()
    took = [max(0.0, f.ended - began) for f in affected]
    spread = {"median": statistics.median(took or [0.0]), "nine tenths": max(sorted(took)[: len(took) * 9 // 10], default=0.0)}
    return max(took, default=0.0), spread | {kind: max((t for t, f in zip(took, affected, strict=True) if f.kind == kind), default=0.0) for kind in KINDS}


def _take(result: Result, verdict: Verdict, repeated_mails: int) -> None:
    result.lost, result.doubled, result.disordered = verdict.count("lost", "hidden", "unlike"), verdict.count("doubled"), verdict.count("disordered")
    result.repeated_mails = repeated_mails
    result.findings += [f"{f.kind}: {f.what}" for f in verdict.findings]


async def run(names: list[str], seed: int) -> AsyncIterator[Result]:
    """The cases in this order, a fresh mesh whenever the old one is used up."""
    waiting = list(names)
    while waiting:
        folder = Path(tempfile.mkdtemp(prefix="mesh faults "))
        try:
            mesh = await asyncio.to_thread(Mesh.start, folder)
            async with World.on(mesh, seed, Size()) as world:
                for left in reversed(range(min(CASES_A_MESH, len(waiting)))):
                    result = await run_case(world, CASES[waiting.pop(0)], last=not left)
                    yield result
                    if not result.green:
                        break
        finally:
            await asyncio.to_thread(Mesh.at(folder).reset)
            shutil.rmtree(folder, ignore_errors=True)


async def _main(names: list[str], seed: int, report: Path) -> bool:
    print(f"seed {seed}, {len(names)} cases\n{HEAD}", flush=True)
    results, began = [], time.monotonic()
    async for result in run(names, seed):
        results.append(result)
        print(result.line, flush=True)
        for finding in result.findings[:12]:
            print(f"    {finding}", flush=True)
        _write(report, {"seed": seed, "seconds": time.monotonic() - began, "results": [asdict(r) for r in results]})
    print(f"{sum(r.green for r in results)} of {len(results)} green after {time.monotonic() - began:.0f} s; JSON in {report}")
    return all(r.green for r in results)


def _write(report: Path, document: dict[str, Any]) -> None:
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(document, indent=1))


def command(
    case: Annotated[list[str] | None, typer.Option(help="Run these cases only: a name or a part of one.")] = None,
    seed: Annotated[int | None, typer.Option(help="Replay the decisions of an earlier run.")] = None,
    names_only: Annotated[bool, typer.Option("--list", help="Name the cases and end.")] = False,
    report: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path("build/faults.json"),
) -> None:
    """Run the fault suite. Exits 1 when anything was lost, doubled or disordered."""
    names = [name for name in CASES if not case or any(part in name for part in case)]
    if names_only or not names:
        print("\n".join(CASES))
        sys.exit(0 if names_only else 2)
    chosen = int(time.time()) if seed is None else seed
    sys.exit(0 if asyncio.run(_main(names, chosen, report)) else 1)


if __name__ == "__main__":
    typer.run(command)
