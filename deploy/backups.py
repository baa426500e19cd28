"""``mesh backup`` and ``mesh restore``: all databases of the control plane into a folder, and back."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer

from deploy import terminal
from deploy.errors import MeshError
from deploy.postgres import Server, control_plane
from deploy.stack import Mesh
from deploy.state import State

_SERVER, _FILES = "postgres", ("plan.json", "secrets.json")
"""What a backup is made of: a base backup of the server, and without what nobody could open it."""

Folder = Annotated[Path, typer.Argument(help="The folder of the backup.")]


def backup(folder: Folder) -> None:
    """Copy all databases of the control plane, as they are at one moment, into a new folder. Everything goes on meanwhile.

    The folder holds the passwords as well: keep it like one.
    """
    mesh = _local(Mesh(State.default()))
    if folder.exists():
        raise MeshError(f"{folder} is there already.", "Name a folder that is not: every backup is one of its own.", code=2)
    if mesh.status()["postgres"]["state"] != "up":
        raise MeshError("Postgres is down, and it is copied while it runs.", "Start it: mesh up", code=3)
    draft = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700, parents=True)
    _server(mesh).copy_to(draft / _SERVER)
    for name in _FILES:
        shutil.copy2(mesh.state.root / name, draft)
    draft.rename(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1024**2
    terminal.line(f"The backup is in {folder}: {size:.0f} MB, passwords included. Bring it back with:  mesh restore {folder}")


def restore(folder: Folder, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Put the databases of a backup in the place of the present ones, which are kept beside them. Then say: mesh restored --all.

    In a state folder that knows no mesh it brings the plan and the passwords back as well.
    """
    _check(folder)
    mesh = Mesh(State.default())
    _claim(mesh, folder)
    server = _server(_local(mesh))
    if server.data.exists() and not yes:
        question = f"Put the databases of {folder} in the place of those in {server.data}?"
        terminal.confirm("Putting other databases in the place of the present ones", question, f"mesh restore {shlex.quote(str(folder))} --yes")
    with mesh.without_postgres() as runs:
        server.replace_by(folder / _SERVER)
    if runs:
        mesh.wait(lambda: mesh.status()["postgres"]["state"] == "up", 60, "Postgres to be up")
    terminal.line("The databases are those of the backup. No service enters them until somebody says so:")
    terminal.line("  mesh restored --all" if runs else "  mesh up, and while it waits for the services, from another terminal: mesh restored --all")


def _server(mesh: Mesh) -> Server:
    return control_plane(mesh.state, mesh.plan)


def _local(mesh: Mesh) -> Mesh:
    if mesh.plan.hosts:
        raise MeshError("This mesh runs in containers.", "Its engine keeps the data: back it up there; after a restore: mesh restored --all", code=2)
    return mesh


def _check(folder: Path) -> None:
    if not all((folder / name).exists() for name in (_SERVER, *_FILES)):
        raise MeshError(f"{folder} is no backup of a mesh.", "They are made by: mesh backup FOLDER", code=2)
    Server.verify(folder / _SERVER)


def _claim(mesh: Mesh, folder: Path) -> None:
    """A backup is opened by the passwords that it was made with: those of the same mesh, or of none yet."""
    plan, secrets = (mesh.state.root / name for name in _FILES)
    if not plan.exists() and not secrets.exists():
        mesh.state.create()
        for path in (plan, secrets):
            shutil.copy2(folder / path.name, path)
    elif not plan.exists() or _identity(secrets) != _identity(folder / secrets.name):
        raise MeshError(
            f"{folder} is a backup of another mesh than {mesh.state.root}.", "Restore it where none is yet: MESH_STATE=<a new folder> mesh restore …", code=2
        )


def _identity(secrets: Path) -> str:
    return str(json.loads(secrets.read_text())["identity"]) if secrets.exists() else ""
