"""``mesh mail``: what the mesh has sent, from its inbox."""

from typing import Annotated, Any

import requests
import typer
from rich.markup import escape

from deploy import terminal
from deploy.console import after_silence
from deploy.errors import MeshError
from deploy.plan import Plan
from deploy.state import State

app = typer.Typer(help="Show the mails that the mesh has sent.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Answer JSON.")]


def messages(to: str | None = None) -> list[dict[str, Any]]:
    """Newest first.

    :raises MeshError: when the inbox does not answer.
    """
    url = f"http://{Plan.load(State.default()).address('mail')}/messages"
    try:
        found: list[dict[str, Any]] = requests.get(url, params={"to": to} if to else {}, timeout=10).json()
    except requests.RequestException as error:
        raise MeshError("The mail inbox does not answer.", after_silence(), code=3) from error
    return found


@app.command("list")
def list_mails(
    to: Annotated[str | None, typer.Option(help="Only mails to this address.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List mails, newest first."""
    found = messages(to)[:limit]
    if as_json:
        terminal.show_json(found)
    else:
        terminal.table([mail["id"][:8], mail["received_at"][:19], escape(", ".join(mail["to"])), escape(mail["subject"])] for mail in found)


@app.command()
def show(
    mail_id: Annotated[str, typer.Argument(metavar="ID", help="An id or its beginning, or 'latest'.")],
    as_json: AsJson = False,
) -> None:
    """Show one mail with its text."""
    found = next((mail for mail in messages() if mail_id == "latest" or mail["id"].startswith(mail_id)), None)
    if found is None:
        raise MeshError(f"There is no mail {mail_id}.", "See which there are: mesh mail list", code=2)
    if as_json:
        terminal.show_json(found)
        return
    for name in ("From", "To", "Subject", "Date"):
        terminal.line(f"[bold]{name}:[/] {escape(found['headers'].get(name, ''))}")
    terminal.line()
    terminal.line(escape(found["text"] or found["html"] or ""))
