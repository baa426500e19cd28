"""Finds out who holds a port before a start fails on it."""

import socket

import psutil

from deploy import process
from deploy.errors import MeshError
from deploy.plan import HOST, Plan, is_free
from deploy.state import State


def listeners() -> dict[int, int | None]:
    """Who listens on which port: the pid, where this user may see it."""
    return {c.laddr.port: c.pid for c in psutil.net_connections("tcp") if c.laddr and c.status == psutil.CONN_LISTEN}


def holder(pid: int | None) -> str:
    """A process in words."""
    if pid is None:
        return "a process of another user"
    try:
        command = " ".join(psutil.Process(pid).cmdline())[:80]
    except psutil.Error:
        command = "a process"
    return f"{command} (pid {pid})"


def taken(state: State, plan: Plan) -> dict[str, str]:
    """The ports of this plan that somebody else holds: the name of the door, and who has its port."""
    occupied = {name: port for name, port in plan.ports.items() if not is_free(port)}
    if not occupied:
        return {}
    ours = {running.pid for running in process.recorded(state).values()} | {stray.pid for stray in process.strays(state)}
    pids = listeners()
    return {name: f"port {port}: {holder(pids.get(port))}" for name, port in occupied.items() if pids.get(port) not in ours}


def _forbidden(port: int) -> bool:
    """Whether this user may not listen there, whoever does."""
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except PermissionError:
            return True
        except OSError:
            return False
        return False


def check(state: State, plan: Plan) -> None:
    """:raises MeshError: when somebody else holds a port that this mesh needs, or this user may not have it."""
    if any(_forbidden(port) for port in plan.ports.values()):
        raise MeshError("Ports below 1024 need privileges that you do not have.", "Choose others: mesh up --port-base 9400", code=2)
    problems = [f"{name} needs {who}" for name, who in taken(state, plan).items()]
    if problems:
        raise MeshError("Ports are in use:\n  " + "\n  ".join(problems), "End that process, or choose others: mesh up --port-base 9400")
