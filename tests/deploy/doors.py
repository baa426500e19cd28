"""Starts one of the small servers of the local mesh for a test, as the supervisor does: by its module and variables."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import requests

from deploy.plan import HOST, Plan, with_ports


def free_ports() -> dict[str, int]:
    return with_ports(Plan(), 0).ports


@contextmanager
def serving(module: str, variables: Mapping[str, str], http_port: int) -> Iterator[str]:
    """The address of its HTTP door; the server is killed at the end, so what it promised to keep has to be on disk."""
    process = subprocess.Popen([sys.executable, "-m", module], env={**os.environ, **variables})
    url = f"http://{HOST}:{http_port}"
    try:
        _await(f"{url}/readyz")
        yield url
    finally:
        process.kill()
        process.wait()


def _await(url: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            requests.get(url, timeout=2).raise_for_status()
        except requests.RequestException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
