"""``mesh parked``: what waits in any service because a reaction or worker fails, and what is to become of it."""

from typing import Annotated

import typer
from rich.markup import escape

from deploy import terminal
from deploy.console import AsJson, Json, Reason, an_id, ask, order
from deploy.errors import MeshError

app = typer.Typer(help="Show what is parked or failing in any service, and act on it.", no_args_is_help=True)

_KNOWN = typer.Argument(metavar="ID", callback=an_id("what is parked or failing", "mesh parked list"))
ParkedId = Annotated[str, _KNOWN]


@app.command("list")
def list_parked(
    state: Annotated[str | None, typer.Option(help="Only what is waiting, retrying or dead.")] = None,
    service: Annotated[str | None, typer.Option(help="Only in this service.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only this reaction or worker.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List what is parked, failing or held by a fuse, oldest first."""
    found = ask("/parked", state=state, service=service, actor=actor, limit=limit)
    if as_json:
        terminal.show_json(found)
    elif found["items"]:
        terminal.table(_row(one) for one in found["items"])
    else:
        terminal.line("Nothing is parked or failing.")


def _row(one: Json) -> list[str]:
    return [one["id"], terminal.word(one["state"]), escape(one["actor"]), escape(one["about"]), f"attempt {one['attempt']}", escape(one["error"])]


@app.command()
def show(parked_id: ParkedId, as_json: AsJson = False) -> None:
    """Show one of them: what fails on what, since when, and what may be done."""
    found = ask(f"/parked/{parked_id}")
    if as_json:
        terminal.show_json(found)
        return
    terminal.line(f"[bold]{escape(found['actor'])}[/]  {terminal.word(found['state'])}  since {found['since']}")
    facts = {"about": found["about"], "fails on": found["change"], "flow": found["flow_id"], "organization": found["org_id"]}
    terminal.table([name, escape(value)] for name, value in facts.items() if value)
    terminal.line(f"  attempt {found['attempt']}: {escape(found['error'])}")
    terminal.line(f"  {escape(found['what_to_do'])}")


@app.command()
def retry(
    parked_id: Annotated[str | None, _KNOWN] = None,
    actor: Annotated[str | None, typer.Option(help="All that is parked for this reaction, or failing for this worker.")] = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Try it now. What was dead gets another day."""
    if (parked_id is None) == (actor is None):
        raise MeshError(
            "Say what is to be tried: an id, or all of an actor.", "mesh parked retry ID, or: mesh parked retry --actor billing.start_the_subscription", code=2
        )
    if actor:
        order("/parked/retry", {"actor": actor, "reason": reason}, as_json=as_json)
    order(f"/parked/{parked_id}/retry", {"reason": reason}, as_json=as_json)


@app.command()
def skip(parked_id: ParkedId, reason: Reason = "", as_json: AsJson = False) -> None:
    """Leave out the change that fails, and apply what waits behind it in order."""
    order(f"/parked/{parked_id}/skip", {"reason": reason}, as_json=as_json)
