"""``make bench``: measures what docs/performance.md promises; a table for people, JSON for machines."""

import asyncio
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy import terminal
from tests.bench import conditions
from tests.bench.cases import CASES
from tests.bench.conditions import Conditions
from tests.bench.registry import Bench, Figure


def _row(figure: Figure) -> list[str]:
    goal = "" if figure.met is None else f"≤ {figure.at_most:g}" if figure.at_most is not None else f"≥ {figure.at_least:g}"
    word = "" if figure.met is None else "[green]reached[/]" if figure.met else "[red]missed[/]"
    return [figure.name, f"{figure.value:,.1f}" if abs(figure.value) < 100 else f"{figure.value:,.0f}", figure.unit, goal, word, f"{len(figure.runs)} runs"]


def _warn(found: Conditions, name: str) -> None:
    if found.busy:
        terminal.line(
            f"[bold red]THE MACHINE WAS BUSY[/] when {name} began: others used {found.others_percent:.0f} % of it "
            f"(load {found.load_1_min}). [bold red]These figures are worse than the truth.[/]"
        )


async def _measure(name: str, quick: bool) -> dict[str, Any]:
    found = conditions.look()
    terminal.heading(name)
    _warn(found, name)
    bench, began = Bench(quick), time.monotonic()
    problem = ""
    try:
        await CASES[name](bench)
    except Exception as error:  # noqa: BLE001 - the cases after it are measured all the same
        problem = f"{type(error).__name__}: {error}"
        terminal.problem(f"{name} was not measured: {problem}", "")
    terminal.table(_row(figure) for figure in bench.figures.values())
    figures = [asdict(f) | {"value": f.value, "met": f.met} for f in bench.figures.values()]
    return {
        "case": name, "conditions": asdict(found) | {"busy": found.busy}, "seconds": round(time.monotonic() - began, 1),
        "problem": problem, "figures": figures, "details": bench.details,
    }  # fmt: skip


def _write(report: Path, results: list[dict[str, Any]], *, quick: bool) -> None:
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps({"quick": quick, "results": results}, indent=1, default=str))


async def _main(names: list[str], report: Path, *, quick: bool) -> bool:
    first = conditions.look(0.1)
    terminal.line(f"{first.cpu}, {first.cores} cores, {first.memory_gb} GB, {first.system}, commit {first.commit}{', quick' if quick else ''}")
    results: list[dict[str, Any]] = []
    for name in names:
        results.append(await _measure(name, quick))
        _write(report, results, quick=quick)
    busy = [r["case"] for r in results if r["conditions"]["busy"]]
    if busy:
        terminal.line(f"\n[bold red]The machine was busy at the start of {', '.join(busy)}: repeat on a quiet one.[/]")
    terminal.line(f"\nJSON in {report}")
    return not any(r["problem"] for r in results)


def command(
    case: Annotated[list[str] | None, typer.Argument(help="Measure these only; without any, all.")] = None,
    report: Annotated[Path, typer.Option("--json", help="Where the JSON goes.")] = Path("build/bench.json"),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and shorter runs: to see that it works, not to quote.")] = False,
    names_only: Annotated[bool, typer.Option("--list", help="Name the cases and end.")] = False,
) -> None:
    """Measure start, idle, sign-up, latency, drain, writes, restating, flows, scale and returning agents. Exits 1 when a case could not be measured."""
    unknown = [name for name in case or [] if name not in CASES]
    if names_only or unknown:
        print("\n".join(CASES))
        sys.exit(2 if unknown else 0)
    sys.exit(0 if asyncio.run(_main(case or list(CASES), report, quick=quick)) else 1)


if __name__ == "__main__":
    typer.run(command)
