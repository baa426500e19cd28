"""A selection of the faults, under load; and the oracle itself, which must notice what it is there for."""

import asyncio
import smtplib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import pytest
import pytest_asyncio

from deploy import process
from deploy.stack import Mesh
from deploy.units import units
from shared.failpoints import FAILPOINTS
from tests.faults.cases import CASES
from tests.faults.cases.c_records import Topics
from tests.faults.cases.d_failpoints import ENUMERATED
from tests.faults.client import Who
from tests.faults.load import Home, Size
from tests.faults.oracle import Kind
from tests.faults.registry import together
from tests.faults.run import Result, run_case
from tests.faults.world import World

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900), pytest.mark.processes]
SIZE, LEAST = Size(sign_ups=6, organizations=20, suspending=6, inviting=60, databases=8, resets=10, beginning=4), 80
"""A third of what `make faults` begins with, so that it fits beside other tests."""


@dataclass
class Tried:
    """What is left after the faults: the mesh, and what was found."""

    world: World
    result: Result

    @property
    def home(self) -> Home:
        """An organization in which nothing happens by itself."""
        return self.world.load.quiet

    @property
    def owner(self) -> Who:
        return self.home.owner

    async def finds(self, *kinds: Kind, within: float = 30) -> None:
        """The oracle turns red for one of these reasons."""
        verdict = None
        for _ in range(round(within)):
            verdict = await self.world.oracle.judge()
            if verdict.count(*kinds):
                return
            await asyncio.sleep(1)
        raise AssertionError(f"nothing of {kinds} was found: {verdict}")

    async def is_green(self) -> None:
        verdict = await self.world.oracle.settled(30)
        assert not verdict.findings


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tried(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tried]:
    """The selected faults, one after the other, on a mesh that knows nothing of other tests."""
    folder: Path = tmp_path_factory.mktemp("faults")
    try:
        mesh = await asyncio.to_thread(Mesh.start, folder)
        async with World.on(mesh, 1, SIZE) as world:
            yield Tried(world, await run_case(world, together([c for c in CASES.values() if c.selected]), LEAST))
    finally:
        await asyncio.to_thread(Mesh.at(folder).reset)


async def test_faults_under_load_lose_double_and_mix_up_nothing(tried: Tried) -> None:
    assert tried.result.in_flight >= LEAST
    assert not tried.result.findings


async def test_every_failpoint_has_a_case() -> None:
    assert set(FAILPOINTS) == ENUMERATED


async def test_a_mail_that_is_sent_twice_is_noticed(tried: Tried) -> None:
    ledger = tried.world.load.ledger
    ledger.sign_ups["twice@example.com"] = None  # somebody of whom nothing but mails is known
    host, port = tried.world.lab.document["mail"]["smtp"].split(":")

    def send() -> None:
        with smtplib.SMTP(host, int(port)) as smtp:
            for number in range(2):
                mail = EmailMessage()
                mail["From"], mail["To"], mail["Subject"], mail["Message-ID"] = "a@example.com", "twice@example.com", "Verify your address", f"<{number}@mesh>"
                smtp.send_message(mail)

    await asyncio.to_thread(send)
    try:
        await tried.finds("doubled")
    finally:
        del ledger.sign_ups["twice@example.com"]


async def test_row_security_that_is_dropped_is_noticed(tried: Tried) -> None:
    await tried.world.lab.run("ALTER TABLE provisioning.databases DISABLE ROW LEVEL SECURITY")
    try:
        await tried.finds("mixed")
    finally:
        await tried.world.lab.run("ALTER TABLE provisioning.databases ENABLE ROW LEVEL SECURITY")


async def test_a_record_that_is_swallowed_is_noticed(tried: Tried) -> None:
    """The position has moved past a change that was never applied."""
    here = ("UPDATE billing.positions SET seq = seq + 1 WHERE reader = 'replicas' AND source = 'org' AND stream = $1", f"org:{tried.home.org_id}")
    await tried.world.lab.rows(*here)
    await tried.world.load.rename(tried.home, "Swallowed")
    await tried.finds("unlike")


async def test_a_lost_position_check_is_noticed(tried: Tried) -> None:
    """Provisioning takes a suspension and a resumption for new when they come again."""
    lab, load = tried.world.lab, tried.world.load
    for act, body in (("suspend", {"reason": "test"}), ("resume", None)):
        started = await load.client.send("POST", "org", f"/orgs/{tried.home.org_id}/{act}", body, tried.owner)
        await load.client.finished(started["flow_id"])
    unit = next(u for u in units(lab.mesh.state, lab.mesh.plan) if u.name == "provisioning")
    async with lab.down("provisioning"):
        argv = [sys.executable, "-m", "tests.faults.careless", "provisioning"]
        process.start(lab.mesh.state, process.Command("provisioning", argv, unit.command().environment))
        await lab.healthy()
        await asyncio.to_thread(Topics(tried.world).repeat, 400, 1)
        await tried.finds("disordered")
