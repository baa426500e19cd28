"""Restate: one handler of three durable steps, behind its server.

``python -m tests.bench.peers.with_restate URL SECONDS RUNS``, or with ``serve URL PORT`` the handler alone.
"""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import restate
from hypercorn.asyncio import serve
from hypercorn.config import Config

from tests.bench.peers.many import AT_ONCE, measure

SERVER = "@restatedev/restate-server@1.7.12"
FOLDER = Path("build/peers")


def server() -> str:
    """The server's program, fetched once."""
    programs = "node_modules/@restatedev/restate-server-*/bin/restate-server"
    if not any(FOLDER.glob(programs)):
        FOLDER.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(FOLDER), SERVER], check=True, stdout=sys.stderr)
    return str(next(FOLDER.glob(programs)))


def a_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def handler(url: str, port: int) -> None:
    pool = await asyncpg.create_pool(url, min_size=8, max_size=32)
    await pool.execute("CREATE TABLE IF NOT EXISTS hops (number bigint, step int)")
    flows = restate.Service("Flows")

    async def hop(number: int, step: int) -> None:
        await pool.execute("INSERT INTO hops VALUES ($1, $2)", number, step)

    @flows.handler()
    async def three_hops(context: restate.Context, number: int) -> int:
        for step in range(3):
            await context.run_typed(f"hop {step}", hop, number=number, step=step)
        return number

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.loglevel = "ERROR"
    await serve(restate.app([flows]), config)


@contextmanager
def running(argv: list[str], **environment: str) -> Iterator[None]:
    process = subprocess.Popen(argv, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


async def answers(client: httpx.AsyncClient, method: str, url: str, **options: Any) -> None:
    """Asks until it does."""
    end = time.monotonic() + 30
    while True:
        try:
            (await client.request(method, url, **options)).raise_for_status()
        except httpx.HTTPError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.2)
        else:
            return


async def main(url: str, seconds: float, runs: int) -> None:
    ingress, admin, node, port = (a_port() for _ in range(4))
    ports = {"RESTATE_INGRESS__BIND_ADDRESS": ingress, "RESTATE_ADMIN__BIND_ADDRESS": admin, "RESTATE_BIND_ADDRESS": node}
    addresses = {name: f"127.0.0.1:{one}" for name, one in ports.items()} | {"RESTATE_LISTEN_MODE": "tcp"}
    with (
        tempfile.TemporaryDirectory() as folder,
        running([sys.executable, "-m", "tests.bench.peers.with_restate", "serve", url, str(port)]),
        running([server(), "--base-dir", folder], **addresses),
    ):
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=AT_ONCE)) as client:
            await answers(client, "GET", f"http://127.0.0.1:{admin}/health")
            await answers(client, "POST", f"http://127.0.0.1:{admin}/deployments", json={"uri": f"http://127.0.0.1:{port}", "force": True})

            async def start(number: int) -> None:
                (await client.post(f"http://127.0.0.1:{ingress}/Flows/three_hops", json=number)).raise_for_status()

            await answers(client, "POST", f"http://127.0.0.1:{ingress}/Flows/three_hops", json=0)
            await measure(start, seconds, runs)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(handler(sys.argv[2], int(sys.argv[3])))
    else:
        asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
