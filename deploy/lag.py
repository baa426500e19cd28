"""``mesh lag``: how far behind every part of the bus is, and for how long."""

from concurrent.futures import ThreadPoolExecutor

import typer

from deploy import terminal
from deploy.console import AsJson, Json, after_silence, ask
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
    answered = {name: one for name, one in found.items() if "error" not in one}
    if as_json:
        terminal.show_json({"services": found})
    elif answered:
        _show(answered)
        for name, one in found.items():
            if name not in answered:
                terminal.line(f"  {name}: {one['error']}")
    if not answered:
        raise MeshError("No service answers.", after_silence(), code=3)
    raise typer.Exit(0 if len(answered) == len(found) else 1)


def _of(service: str) -> Json:
    try:
        return ask("/lag", of=service)
    except MeshError as error:
        return {"error": error.problem}


_LOGS = ("service", "epoch", "slot", "connected", "not read", "oldest of it", "log records", "last written", "streams to restate")
_TOPICS = ("topic", "records", "newest", "reader", "read", "behind")
_SOURCES = ("reader", "source", "streams", "heads heard", "behind", "since", "held for a gap", "asked again")


def _show(found: dict[str, Json]) -> None:
    terminal.heading("Slots and logs: what Postgres has and Connect has not read")
    terminal.table((_log(name, one) for name, one in found.items()), _LOGS)
    terminal.heading("Topics and consumers: what Kafka has and who has read it")
    topics = [_topic(name, topic) for name, one in found.items() for topic in one["topics"] or ()]
    if topics:
        terminal.table(topics, _TOPICS)
    else:
        terminal.line("  Kafka does not answer. See why: mesh status")
    terminal.heading("Positions and heads: what was announced and who has applied it")
    terminal.table((_source(name, source) for name, one in found.items() for source in one["sources"]), _SOURCES)


def _log(name: str, one: Json) -> list[str]:
    slot, log = one["slot"] or {}, one["log"]
    read = [slot["name"], "yes" if slot["active"] else "no", f"{slot['behind_bytes']} bytes", _age(slot["age_seconds"])] if slot else ["none", "no", "", ""]
    return [name, str(one["epoch"]), *read, str(log["records"]), _age(log["age_seconds"]), str(one["to_restate"])]


def _topic(name: str, topic: Json) -> list[str]:
    return [topic["topic"], str(topic["end"]), _age(topic["age_seconds"]), name, str(topic["committed"]), str(topic["behind"])]


def _source(name: str, source: Json) -> list[str]:
    heads = "not needed" if source["heads_age_seconds"] is None else _age(source["heads_age_seconds"])
    since = _age(source["behind_age_seconds"]) if source["behind"] else ""
    return [name, source["source"], str(source["streams"]), heads, str(source["behind"]), since, str(source["held"]), str(source["asked_again"])]


def _age(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{max(0.0, seconds):.1f} s ago"
