"""``mesh flows``: which flow of which customer is where, and what holds it up."""

import time
from datetime import datetime
from typing import Annotated

import typer
from rich.markup import escape

from deploy import terminal
from deploy.console import AsJson, Json, Reason, an_id, ask, order
from deploy.errors import MeshError

app = typer.Typer(help="Show the flows of all organizations, and act on one that is stuck.", no_args_is_help=True)

FlowId = Annotated[str, typer.Argument(metavar="ID", callback=an_id("a flow", "mesh flows list"))]
_CANCELLED_WITHIN = 10  # seconds


@app.command("list")
def list_flows(
    state: Annotated[str | None, typer.Option(help="Only flows in this state: running, failing, overdue, parked, done, …")] = None,
    flow: Annotated[str | None, typer.Option(help="Only this flow, by its name.")] = None,
    step: Annotated[str | None, typer.Option(help="Only flows whose next step is this.")] = None,
    stuck: Annotated[bool, typer.Option("--stuck", help="Only flows that are failing, overdue, parked or lost.")] = False,
    deviating: Annotated[bool, typer.Option("--deviating", help="Only flows that went otherwise than they are defined.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List flows, newest first, and count the unfinished ones before each step."""
    found = ask(
        "/flows", state=state, flow=flow, step=step, stuck="true" if stuck else None, deviating="true" if deviating else None, limit=limit
    )  # fmt: skip
    if as_json:
        terminal.show_json(found)
        return
    terminal.table(
        [one["id"], terminal.word(one["state"]), escape(one["flow"] or "?"), escape(one["step"] or ""), escape(one["org_id"] or "")] for one in found["items"]
    )
    if found["counts"]:
        terminal.heading("Not finished")
        terminal.table([str(c["count"]), terminal.word(c["state"]), escape(c["flow"]), escape(c["step"])] for c in found["counts"])


@app.command()
def show(
    flow_id: FlowId,
    wait: Annotated[int, typer.Option(min=0, max=60, help="Seconds to wait until it is finished.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Show one flow with its steps: when each was met, how long after its cause that was, and what holds up the next."""
    found = ask(f"/flows/{flow_id}", wait=wait)
    if as_json:
        terminal.show_json(found)
        return
    _show(found)


def _show(flow: Json) -> None:
    if flow["flow"] is None:
        terminal.line(f"Nothing of this flow has come yet. The newest data is {flow['data_age_ms'] / 1000:.0f} s old. See what is behind: mesh lag")
        return
    terminal.line(f"[bold]{escape(flow['flow'])}[/]  {terminal.word(flow['state'])}  started {flow['started_at']}")
    terminal.table([["", "step", "service", "after start", "after cause", ""], *(_step(flow, step) for step in by_time(flow["steps"]))])
    for step in flow["steps"]:
        if step["what_to_do"]:
            terminal.line(f"  {escape(step['name'])}, of {step['owner']}, since {step['since']}: {escape(step['what_to_do'])}")
    for deviation in flow["deviations"]:
        terminal.line(f"  otherwise than defined: {escape(deviation)}")
    if flow["stays"] is not None:
        terminal.heading("What stays")
        terminal.table([row["service"], row["table"], escape(" ".join(map(str, row["key"].values())))] for row in flow["stays"])
    terminal.line(f"The data is {flow['data_age_ms']} ms old.")


def by_time(steps: list[Json]) -> list[Json]:
    """Those that were met in the order of their times; the others stay where the flow's definition has them."""
    met = iter(sorted((step for step in steps if step["at"]), key=lambda step: datetime.fromisoformat(step["at"])))
    return [next(met) if step["at"] else step for step in steps]


def _step(flow: Json, step: Json) -> list[str]:
    """Steps of different services run side by side: how long one took is told from its own cause, not from the step above it."""
    met = f"{ms_since_start(flow, step):.0f} ms" if step["at"] else ""
    took = f"{step['queued_ms']} ms" if step["queued_ms"] is not None else "–"  # noqa: RUF001 - a dash is meant
    trouble = f"attempt {step['attempt']}: {step['error']}" if step.get("error") else step.get("waits_for") or ""
    return [terminal.word(step["state"]), escape(step["name"]), step["service"], met, took, escape(trouble)]


def ms_since_start(flow: Json, step: Json) -> float:
    """When a step that was met was, in milliseconds after the start of its flow."""
    return (datetime.fromisoformat(step["at"]) - datetime.fromisoformat(flow["started_at"])).total_seconds() * 1000


@app.command()
def retry(flow_id: FlowId, reason: Reason = "", as_json: AsJson = False) -> None:
    """Try everything now that is parked or failing for a flow. What was dead gets another day."""
    order(f"/flows/{flow_id}/retry", {"reason": reason}, as_json=as_json)


@app.command()
def skip(flow_id: FlowId, reason: Reason = "", as_json: AsJson = False) -> None:
    """Leave out what a flow is stuck on; what waits behind it goes on, in order."""
    order(f"/flows/{flow_id}/skip", {"reason": reason}, as_json=as_json)


@app.command()
def cancel(flow_id: FlowId, reason: Reason = "", as_json: AsJson = False) -> None:
    """Stop a flow's further steps. Nothing is taken back: what stays is listed."""
    ask(f"/flows/{flow_id}/cancel", {"reason": reason})
    found = ask(f"/flows/{flow_id}")
    deadline = time.monotonic() + _CANCELLED_WITHIN
    while found["state"] != "cancelled" and time.monotonic() < deadline:
        time.sleep(0.1)
        found = ask(f"/flows/{flow_id}")
    if as_json:
        terminal.show_json(found)
    else:
        _show(found)
    if found["state"] != "cancelled":
        raise MeshError(f"It is ordered, and the flow is still {found['state']}.", "See what keeps the bus: mesh lag")
