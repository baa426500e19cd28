"""The ``mesh`` command as tests give it: without a process of its own, which takes a second to start."""

from pathlib import Path
from typing import NamedTuple

from typer.testing import CliRunner

from deploy.cli import app
from deploy.errors import MeshError


class Done(NamedTuple):
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


def command(state: Path, *words: str) -> Done:
    """Said of the mesh whose state is in this folder."""
    done = CliRunner().invoke(app, words, env={"MESH_STATE": str(state), "NO_COLOR": "1"})
    if isinstance(done.exception, MeshError):
        return Done(done.exception.code, done.stdout, done.stderr + str(done.exception))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(done.exit_code, done.stdout, done.stderr)
