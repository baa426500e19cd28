"""How the ``mesh`` command speaks: plain lines for programs, colors for people, JSON on demand."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from deploy.errors import MeshError

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_GOOD = ("up", "ready", "ok", "RUNNING", "met", "done")
_NEITHER = ("starting", "skipped", "missing", "pending", "running", "waiting_timer", "waiting_person", "superseded", "cancelled")
_COLORS = dict.fromkeys(_GOOD, "green") | dict.fromkeys(_NEITHER, "yellow")


def show_json(document: Any) -> None:
    """Unstyled, for programs."""
    print(json.dumps(document, indent=2, default=str))  # noqa: T201 -- the one place that writes for programs


def line(text: str = "") -> None:
    out.print(text)


def word(state: str) -> str:
    """A state in its color; what is not known to be well is red."""
    return f"[{_COLORS.get(state, 'red')}]{escape(state)}[/]"


def heading(text: str) -> None:
    out.print(f"\n[bold]{escape(text)}[/]")


def table(rows: Iterable[Sequence[str]], heads: Sequence[str] = ()) -> None:
    """Columns aligned by spaces, with or without heads; the last one is free. Cells may hold markup."""
    known = [[f"[dim]{escape(head)}[/]" for head in heads]] if heads else []
    known += [[*row] for row in rows]
    widths = [max(len(_bare(row[i])) for row in known) for i in range(max((len(row) for row in known), default=1) - 1)]
    for row in known:
        cells = [cell + " " * (width - len(_bare(cell))) for cell, width in zip(row, widths, strict=False)]
        out.print("  " + "  ".join([*cells, *row[len(cells) :]]).rstrip())


def masked(secret: str) -> str:
    return f"{secret[:3]}…{secret[-2:]}"


def confirm(what: str, question: str, again: str) -> None:
    """Go on only when a person says yes; ``again`` is the command that does not ask.

    :raises MeshError: where nobody can be asked.
    """
    if not sys.stdin.isatty():
        raise MeshError(f"{what} must be confirmed, and nobody can be asked here.", again)
    typer.confirm(question, abort=True, err=True)


def problem(text: str, hint: str) -> None:
    err.print(f"[red]error:[/] {escape(text)}")
    if hint:
        err.print(f"  [bold]→[/] {escape(hint)}")


def _bare(cell: str) -> str:
    return out.render_str(cell).plain
