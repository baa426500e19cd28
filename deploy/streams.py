"""``mesh resend``, ``mesh restate`` and ``mesh restored``: what a service has said is said again."""

import asyncio
import re
from contextlib import suppress
from typing import Annotated
from uuid import UUID

import asyncpg
import requests
import typer

from deploy import connect, terminal
from deploy.console import AsJson, Reason, order
from deploy.errors import MeshError
from deploy.plan import SERVICES
from deploy.stack import Mesh
from deploy.state import State


def _known_service(value: str | None) -> str | None:
    if value and value not in SERVICES:
        raise MeshError(f"There is no service {value}.", f"There are: {', '.join(SERVICES)}", code=2)
    return value


def _known_stream(value: str | None) -> str | None:
    """As a door takes it: an id in its usual form."""
    kind, _, name = (value or "").partition(":")
    with suppress(ValueError):
        if value is None or (kind == "global" and re.fullmatch("[a-z_]+", name)):
            return value
        if kind in {"org", "user"}:
            return f"{kind}:{UUID(name)}"
    raise MeshError(f"{value} is not a stream.", "A stream is org:<id>, user:<id> or global:<name>; ids of organizations: mesh flows list", code=2)


Service = Annotated[str, typer.Option(help="The service that owns the stream.", callback=_known_service)]


def resend(
    service: Service,
    stream: Annotated[str, typer.Option(help="org:<id>, user:<id> or global:<name>", callback=_known_stream)],
    first: Annotated[int | None, typer.Option("--from", min=1, help="The first number; the beginning by default.")] = None,
    last: Annotated[int | None, typer.Option("--to", min=1, help="The last number; the head by default.")] = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Send changes of a stream again, under their old numbers; who has applied them passes over them."""
    order(f"/services/{service}/resend", {"stream": stream, "from_seq": first, "to_seq": last, "reason": reason}, as_json=as_json)


def restate(
    service: Service,
    stream: Annotated[str | None, typer.Option(help="org:<id>, user:<id> or global:<name>; all by default.", callback=_known_stream)] = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Have a service say what its rows are now, so that copies elsewhere equal them; no reaction runs."""
    order(f"/services/{service}/restate", {"stream": stream, "reason": reason}, as_json=as_json)


def restored(
    service: Annotated[str | None, typer.Option(help="A service of the database that was restored.", callback=_known_service)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every database of the mesh was.")] = False,
    nothing_lost: Annotated[bool, typer.Option("--nothing-lost", help="A failover that kept every commit: only go on.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say that a database was restored from a backup, or lost commits in a failover: everybody starts over with what it holds.

    It asks first, and says whether the database is really another one: on one that was not restored, everything is only restated. Nothing is
    asked with --nothing-lost.
    """
    mesh = Mesh(State.default())
    if (service is None) != everything:
        raise MeshError("Say which database was restored.", "mesh restored --service org (with all services of its database), or: mesh restored --all", code=2)
    if not (yes or nothing_lost):
        _confirm(mesh, f"--service {service}" if service else "--all")
    epochs: dict[str, int] = {}
    for database in [mesh.plan.database_of(service)] if service else mesh.plan.placement:
        if not nothing_lost:
            _read_anew(mesh, database)
        epochs |= asyncio.run(_raise_epochs(mesh, mesh.plan.placement[database], nothing_lost=nothing_lost))
    if as_json:
        terminal.show_json({"epochs": epochs})
    else:
        terminal.table([name, f"epoch {epoch}"] for name, epoch in epochs.items())


def _confirm(mesh: Mesh, which: str) -> None:
    held = _held(mesh)
    found = f"Held, since it is not the database they wrote into: {', '.join(held)}." if held else "No service is held: each is in the database it wrote into."
    terminal.confirm(f"{found} Starting over", f"{found} Have everybody start over with what the database holds?", f"mesh restored {which} --yes")


def _held(mesh: Mesh) -> list[str]:
    try:
        return asyncio.run(mesh.databases.restored())
    except (OSError, asyncpg.PostgresError) as error:
        raise MeshError("Postgres does not answer.", "When it is up (mesh status), repeat this command.", code=3) from error


async def _raise_epochs(mesh: Mesh, services: tuple[str, ...], *, nothing_lost: bool) -> dict[str, int]:
    """The epoch of each service from now on."""
    epochs = {}
    for service in services:
        connection = await asyncpg.connect(mesh.databases.url(service, "owner"))
        try:
            epochs[service] = await connection.fetchval("SELECT restored($1)", nothing_lost)
        finally:
            await connection.close()
    return epochs


def _read_anew(mesh: Mesh, database: str) -> None:
    """The place in the log that Connect has noted is one of the lost database: the slot, made anew if it is gone, knows where to go on.

    :raises MeshError: when Connect does not do it; nothing has changed then.
    """
    asyncio.run(mesh.databases.prepare())
    try:
        connect.Worker.of(mesh.state, mesh.plan).registry.forget_place(f"{database}-changes")
    except (requests.RequestException, TimeoutError) as error:
        raise MeshError(f"Connect does not read {database} anew: {error}", "When it runs (mesh status), repeat this command.") from error
