"""Finds out who holds a port before a start fails on it."""

import psutil

from deploy import process
from deploy.errors import MeshError
from deploy.plan import Plan, is_free
from deploy.state import State


def holder(port: int) -> str:
    """Who listens there, in words: a name and a pid where this user may see them."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            try:
                command = " ".join(psutil.Process(connection.pid).cmdline())[:80]
            except psutil.Error:
                command = "a process"
            return f"{command} (pid {connection.pid})"
    return "a process of another user"


def taken(state: State, plan: Plan) -> dict[str, str]:
    """The ports of this plan that somebody else holds: the name of the door, and who has its port."""
    occupied = {name: port for name, port in plan.ports.items() if not is_free(port)}
    if not occupied:
        return {}
    ours = {running.pid for running in process.recorded(state).values()} | {stray.pid for stray in process.strays(state)}
    listeners = {c.laddr.port: c.pid for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    return {name: f"port {port}: {holder(port)}" for name, port in occupied.items() if listeners.get(port) not in ours}


def check(state: State, plan: Plan) -> None:
    """:raises MeshError: when somebody else holds a port that this mesh needs."""
    problems = [f"{name} needs {who}" for name, who in taken(state, plan).items()]
    if problems:
        raise MeshError("Ports are in use:\n  " + "\n  ".join(problems), "End that process, or choose others: mesh up --port-base 9400")
