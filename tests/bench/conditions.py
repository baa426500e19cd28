"""Under what conditions a figure was taken: the machine, what else it did, and which commit ran."""

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

CHECKOUT = Path(__file__).resolve().parents[2]
QUIET = 10.0
"""Percent of all cores that others may use before the machine counts as busy."""


@dataclass(frozen=True)
class Conditions:
    """``others_percent`` is what the machine did in the seconds before the start, of all its cores together."""

    at: str
    commit: str
    cpu: str
    cores: int
    memory_gb: float
    system: str
    python: str
    load_1_min: float
    others_percent: float

    @property
    def busy(self) -> bool:
        return self.others_percent > QUIET


def look(seconds: float = 2.0) -> Conditions:
    return Conditions(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=_commit(),
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        load_1_min=round(os.getloadavg()[0], 2),
        others_percent=psutil.cpu_percent(seconds),
    )


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor() or "unknown")


def _commit() -> str:
    try:
        run = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
        return subprocess.run(run, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
