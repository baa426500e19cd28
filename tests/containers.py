"""The mesh of docker-compose.yml for the tests: ``pytest --stack=containers``."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from testcontainers.compose import DockerCompose

from deploy.containers import prepare
from deploy.stack import Mesh
from deploy.state import CHECKOUT, State
from tests.mesh import TestMesh
from tests.traces import Traces

MARKER = "processes"
_HINT = "Start one and see that `docker info` and `docker compose version` answer (2.23.1 or newer), or run the suite without it: pytest --stack=local"


def require_engine() -> None:
    """:raises pytest.UsageError: when no engine can run docker-compose.yml here; it names what to do."""
    docker = shutil.which("docker")
    if docker is None:
        raise pytest.UsageError(f"--stack=containers needs a container engine, and there is no command `docker` here.\n{_HINT}")
    for question in (["info"], ["compose", "version"]):
        answer = subprocess.run([docker, *question], capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            why = (answer.stderr.strip() or answer.stdout.strip()).splitlines()[-1:]
            raise pytest.UsageError(f"--stack=containers needs a container engine: `docker {' '.join(question)}` says {''.join(why)!r}.\n{_HINT}")


def touches_processes(item: pytest.Item) -> bool:
    """Whether it ends, holds or looks into processes of the local stack: by its marker, its own bus, or its folder."""
    return bool(item.get_closest_marker(MARKER)) or "bus" in getattr(item, "fixturenames", ()) or "faults" in item.path.parts


def leave_out(config: pytest.Config, items: list[pytest.Item]) -> list[pytest.Item]:
    """Take out what cannot run on containers; what was taken out."""
    left_out = [item for item in items if touches_processes(item)]
    items[:] = [item for item in items if item not in left_out]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
    return left_out


@contextmanager
def running(folder: Path) -> Iterator[TestMesh]:
    """A mesh of its own passwords and volumes, on the ports that docker-compose.yml publishes; removed at the end."""
    env_file = folder / "passwords.env"
    prepare(State(folder), env_file)
    traces = Traces(host="0.0.0.0")  # the containers come from an address of the engine's
    os.environ |= {
        "COMPOSE_PROJECT_NAME": "saas-mesh-tests",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://host.docker.internal:{traces.server.server_port}",
        "RATE_LIMIT_PER_MINUTE": "100000",  # they all come from the engine's one address, which is not loopback
    }
    with DockerCompose(CHECKOUT, compose_file_name="docker-compose.yml", env_file=str(env_file), build=True, wait=True) as compose:
        yield TestMesh(Mesh.at(folder), traces, log=lambda name: "".join(compose.get_logs(name)))
