"""``mesh flows``: which flow of which customer is where, and what holds it up."""

from typing import Annotated, Any

import requests
import typer
from rich.markup import escape

from deploy import terminal
from deploy.errors import MeshError
from deploy.stack import Mesh
from deploy.state import State

app = typer.Typer(help="Show the flows of all organizations.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Answer JSON.")]


def ask_console(path: str, **query: str | int | None) -> dict[str, Any]:
    """The console's answer to an operator.

    :raises MeshError: when it does not answer, or refuses.
    """
    status = Mesh(State.default()).status()
    url = status["services"]["console"]["url"] + path
    wanted = {name: value for name, value in query.items() if value is not None}
    try:
        answer = requests.get(url, params=wanted, headers={"Authorization": f"Bearer {status['operator_token']}"}, timeout=70)
    except requests.RequestException as error:
        raise MeshError("The console does not answer.", "See why: mesh status", code=3) from error
    if answer.status_code == requests.codes.not_found:
        raise MeshError("The console knows no such flow.", "See which there are: mesh flows list", code=2)
    if not answer.ok:
        raise MeshError(f"The console answered {answer.status_code}: {answer.text}", "Look closer: mesh logs console")
    return dict(answer.json())


@app.command("list")
def list_flows(
    state: Annotated[str | None, typer.Option(help="Only flows in this state: running, failing, overdue, parked, done, …")] = None,
    flow: Annotated[str | None, typer.Option(help="Only this flow, by its name.")] = None,
    step: Annotated[str | None, typer.Option(help="Only flows whose next step is this.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List flows, newest first, and count the unfinished ones before each step."""
    found = ask_console("/flows", state=state, flow=flow, step=step, limit=limit)
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
    flow_id: Annotated[str, typer.Argument(metavar="ID")],
    wait: Annotated[int, typer.Option(min=0, max=60, help="Seconds to wait until it is finished.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Show one flow with its steps: when each was met, how long it took, and what holds up the next."""
    found = ask_console(f"/flows/{flow_id}", wait=wait)
    if as_json:
        terminal.show_json(found)
        return
    terminal.line(f"[bold]{escape(found['flow'] or '?')}[/]  {terminal.word(found['state'])}  started {found['started_at']}")
    terminal.table([_step(step) for step in found["steps"]])
    terminal.line(f"The data is {found['data_age_ms']} ms old.")


def _step(step: dict[str, Any]) -> list[str]:
    took = f"{step['in_step_ms']} ms" if step["in_step_ms"] is not None else ""
    trouble = f"attempt {step['attempt']}: {step['error']}" if step.get("error") else step.get("waits_for") or ""
    return [terminal.word(step["state"]), escape(step["name"]), step["service"], took, escape(trouble)]
