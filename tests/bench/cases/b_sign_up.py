"""From the sign-up request to the customer's own login in the new database."""

import asyncio
import statistics
from collections import defaultdict

import httpx

from deploy.status import Document
from tests.bench.customers import Newcomer, SignUp
from tests.bench.meshes import a_mesh
from tests.bench.registry import Bench, case

WARM_UP = 20


@case("signup")
async def signup(bench: Bench) -> None:
    """Alone, and eight at once all the time; the first sign-ups after a start do not count."""
    async with a_mesh() as mesh, httpx.AsyncClient(timeout=60) as client:
        document = mesh.status()
        await series(client, document, WARM_UP, at_once=4)
        for at_once, goal in ((1, 250.0), (8, None)):
            for _ in range(1 if bench.quick else 5):
                await asyncio.sleep(3)
                done = await series(client, document, 10 if bench.quick else 20 * min(at_once, 2), at_once)
                bench.saw_times(f"sign-up to own login, {at_once} at once", [one.reached["usable"] for one in done], p50=goal)
                _explain(bench, done, at_once)


async def series(client: httpx.AsyncClient, document: Document, count: int, at_once: int) -> list[SignUp]:
    """So many sign-ups, each with its whole flow, never more at once than told."""
    waiting = iter(range(count))
    done: list[SignUp] = []

    async def customer() -> None:
        for _ in waiting:
            newcomer = Newcomer(client, document)
            signed_up = await newcomer.sign_up()
            signed_up.flow = await newcomer.whole_flow()
            done.append(signed_up)

    await asyncio.gather(*(customer() for _ in range(at_once)))
    return done


def _explain(bench: Bench, done: list[SignUp], at_once: int) -> None:
    """Where the time goes: what the customer saw, and each step with the time it was queued, as medians."""
    for what in done[0].reached:
        bench.saw(f"  {at_once} at once: until {what}", "ms", statistics.median(one.reached[what] for one in done))
    took: dict[str, list[float]] = defaultdict(list)
    for one in done:
        for step in one.flow["steps"]:
            for kind in ("in_step_ms", "queued_ms"):
                if step[kind] is not None:
                    took[f"{step['name']}: {kind}"].append(step[kind])
    bench.details.setdefault(f"steps at {at_once}", []).append({name: statistics.median(times) for name, times in took.items()})
