"""The console as the ``mesh`` command speaks to it: as an operator, and waiting for what comes of an order."""

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

import requests
import typer
from rich.markup import escape

from deploy import process, terminal
from deploy.errors import MeshError
from deploy.plan import Plan
from deploy.stack import Mesh
from deploy.state import State

Json = dict[str, Any]
AsJson = Annotated[bool, typer.Option("--json", help="Answer JSON.")]
Reason = Annotated[str, typer.Option("--reason", help="For those who read the trail later.")]

_WAIT = 10.0  # seconds for what comes of an order


def ask(path: str, body: Json | None = None, *, of: str = "console", **query: str | int | None) -> Json:
    """A service's answer to an operator; with a body it is a POST.

    :raises MeshError: when it does not answer, or refuses.
    """
    mesh = Mesh(State.default())
    url = f"{mesh.environment.url(of)}{path}"
    wanted = {name: value for name, value in query.items() if value is not None}
    headers = {"Authorization": f"Bearer {mesh.environment.operator_token}"}
    try:
        answer = requests.request("GET" if body is None else "POST", url, params=wanted, json=body, headers=headers, timeout=70)
    except requests.RequestException as error:
        raise MeshError(f"The service {of} does not answer.", after_silence(), code=3) from error
    if answer.ok:
        return dict(answer.json())
    raise _refusal(of, path, answer)


def after_silence() -> str:
    """What to do when nobody answers: look why, or start the mesh where nothing runs."""
    state = State.default()
    return "See why: mesh status" if process.recorded(state) or Plan.load(state).hosts else "Start the mesh: mesh up"


def an_id(of: str, look: str) -> Callable[[str | None], str | None]:
    """Checks an argument. ``look`` is the command that lists the ids there are."""

    def check(value: str | None) -> str | None:
        try:
            return value and str(UUID(value))
        except ValueError:
            raise MeshError(f"{value} is not the id of {of}.", f"See which there are: {look}", code=2) from None

    return check


def _refusal(service: str, path: str, answer: requests.Response) -> MeshError:
    """What the caller can mend exits with 2. What an operator does not find is not there: the service's own words are for members."""
    _, kind, *rest = path.split("/")
    if answer.status_code == HTTPStatus.NOT_FOUND and kind in {"flows", "parked"}:
        return MeshError(f"Nothing is known here by the id {rest[0]}.", f"See which there are: mesh {kind} list", code=2)
    try:
        said = str(answer.json()["detail"])
    except (ValueError, KeyError):
        said = answer.text
    mendable = 400 <= answer.status_code < 500
    return MeshError(
        f"The {service} refused ({answer.status_code}): {said}", "" if mendable else f"Look closer: mesh logs {service}", code=2 if mendable else 1
    )


def order(path: str, body: Json, *, as_json: bool) -> None:
    """Gives orders, waits for what comes of them, and shows it. Exits 1 when nothing came or nothing was done."""
    given = [ask(f"/orders/{one['id']}") for one in ask(path, body)["orders"]]
    deadline = time.monotonic() + _WAIT
    while not all(one["results"] for one in given) and time.monotonic() < deadline:
        time.sleep(0.1)
        given = [ask(f"/orders/{one['id']}") for one in given]
    if as_json:
        terminal.show_json({"orders": given})
    else:
        for one in given:
            _show(one)
    raise typer.Exit(0 if all(any(r["did"] for r in one["results"]) for one in given) else 1)


def _show(one: Json) -> None:
    terminal.table([result["service"], escape(result["actor"]), escape(result["subject"]), escape(result["outcome"])] for result in one["results"])
    if not one["results"]:
        about = one["service"] or "every service"
        terminal.line(f"  Ordered, and not carried out within {_WAIT:.0f} s: {about} does it when it is there again. See: mesh status")
