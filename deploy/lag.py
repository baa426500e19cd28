"""``mesh lag``: how far behind every part of the bus is, and for how long."""

from concurrent.futures import ThreadPoolExecutor

import typer

from deploy import terminal
from deploy.console import AsJson, Json, ask
from deploy.errors import MeshError
from deploy.plan import Plan
from deploy.state import State


def lag(as_json: AsJson = False) -> None:
    """Show how far behind the slots, logs, topics, consumers, positions and heads are, each with its age."""
    services = Plan.load(State.default()).services
    if not services:
        raise MeshError("This mesh has no services.", "Start them: mesh up", code=3)
    with ThreadPoolExecutor(len(services)) as pool:
        found = dict(zip(services, pool.map(_of, services), strict=True))
    if as_json:
        terminal.show_json({"services": found})
    else:
        _show({name: one for name, one in found.items() if "error" not in one})
        for name, one in found.items():
            if "error" in one:
                terminal.line(f"  {name}: {one['error']}")
    raise typer.Exit(1 if any("error" in one for one in found.values()) else 0)


def _of(service: str) -> Json:
    try:
        return ask("/lag", of=service)
    except MeshError as error:
        return {"error": error.problem}


def _show(found: dict[str, Json]) -> None:
    terminal.heading("Slots and logs")
    terminal.table(_log(name, one) for name, one in found.items())
    terminal.heading("Topics and consumers")
    terminal.table(_topic(name, topic) for name, one in found.items() for topic in one["topics"] or ())
    terminal.heading("Positions and heads")
    terminal.table(_source(name, source) for name, one in found.items() for source in one["sources"])


def _log(name: str, one: Json) -> list[str]:
    slot, log = one["slot"], one["log"]
    waits = f"{slot['name']} {'active' if slot['active'] else 'idle'} {slot['behind_bytes']} bytes behind, {_age(slot['age_seconds'])}" if slot else "no slot"
    restating = f"{one['to_restate']} streams to restate" if one["to_restate"] else ""
    return [name, f"epoch {one['epoch']}", f"slot {waits}", f"log {log['records']} records, {_age(log['age_seconds'])}", restating]


def _topic(name: str, topic: Json) -> list[str]:
    return [topic["topic"], f"end {topic['end']}, {_age(topic['age_seconds'])}", f"read by {name} to {topic['committed']}", f"{topic['behind']} behind"]


def _source(name: str, source: Json) -> list[str]:
    missing = f"{source['behind']} behind since {_age(source['behind_age_seconds'])}, {source['held']} held" if source["behind"] or source["held"] else ""
    heads = "heads not needed" if source["heads_age_seconds"] is None else f"heads {_age(source['heads_age_seconds'])}"
    return [f"{name} of {source['source']}", f"{source['streams']} streams", heads, missing]


def _age(seconds: float | None) -> str:
    return "age unknown" if seconds is None else f"{max(0.0, seconds):.1f} s old"
