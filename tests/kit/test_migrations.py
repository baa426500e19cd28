"""Migrations: forward only, checksummed, each as a whole, safe when replicas start together."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from shared import migrations
from shared.migrations import MigrationChanged, migrate
from tests.kit.conftest import Probe


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The migrations of the scratch service."""
    monkeypatch.setattr(migrations, "SERVICES", tmp_path)
    folder = tmp_path / "probe" / "migrations"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
async def owner(probe: Probe, probe_url: str) -> str:
    await probe.admin.execute("DELETE FROM probe.migrations WHERE name LIKE 'probe/%'; DROP TABLE IF EXISTS probe.one, probe.two")
    return probe_url.replace("probe_app", "probe_owner")


async def test_each_file_is_applied_once_also_when_replicas_start_together(folder: Path, owner: str) -> None:
    (folder / "0001_one.sql").write_text("CREATE TABLE one (id int)")
    (folder / "0002_two.sql").write_text("CREATE TABLE two (id int)")
    applied = await asyncio.gather(*(migrate("probe", owner) for _ in range(3)))
    assert sorted(applied) == [[], [], ["probe/0001_one.sql", "probe/0002_two.sql"]]


async def test_the_log_is_closed_also_when_the_last_who_migrated_was_killed_before(folder: Path, owner: str, probe: Probe) -> None:
    del folder
    rights = "SELECT has_table_privilege('probe_app', 'probe.changes', 'INSERT')"
    await probe.admin.execute("GRANT INSERT ON probe.changes TO probe_app")
    assert await probe.admin.fetchval(rights)
    assert await migrate("probe", owner) == []
    assert not await probe.admin.fetchval(rights)


async def test_a_file_that_was_applied_may_not_change(folder: Path, owner: str) -> None:
    (folder / "0001_one.sql").write_text("CREATE TABLE one (id int)")
    await migrate("probe", owner)
    (folder / "0001_one.sql").write_text("CREATE TABLE one (id bigint)")
    with pytest.raises(MigrationChanged, match="0001_one"):
        await migrate("probe", owner)


async def test_of_a_file_that_fails_nothing_stays(folder: Path, owner: str, probe: Probe) -> None:
    (folder / "0001_one.sql").write_text("CREATE TABLE one (id int)")
    (folder / "0002_two.sql").write_text("CREATE TABLE two (id int); SELECT 1 / 0")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate("probe", owner)
    there = "SELECT to_regclass('probe.one') IS NOT NULL, to_regclass('probe.two') IS NOT NULL"
    assert tuple(await probe.admin.fetchrow(there)) == (True, False)
    (folder / "0002_two.sql").write_text("CREATE TABLE two (id int)")
    assert await migrate("probe", owner) == ["probe/0002_two.sql"]
