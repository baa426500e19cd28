"""Backups of the control plane's databases, on the bus alone; the drill with people on it is in tests/faults."""

import json
import shlex
from pathlib import Path

import pytest

from deploy.stack import Mesh
from tests.command import command
from tests.deploy.bus import travels, write_change

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def backup(bus: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a shelf") / "monday's"
    done = command(bus.state.root, "backup", str(folder))
    assert done.returncode == 0, done.stderr
    assert f"mesh restore {folder}" in done.stdout
    return folder


def test_a_backup_is_for_its_owner_alone_and_never_written_over(bus: Mesh, backup: Path) -> None:
    assert backup.stat().st_mode & 0o077 == 0
    again = command(bus.state.root, "backup", str(backup))
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_a_backup_that_was_damaged_is_refused(bus: Mesh, backup: Path) -> None:
    pid, control = bus.pid("postgres"), backup / "postgres" / "global" / "pg_control"
    whole = control.read_bytes()
    try:
        control.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        done = command(bus.state.root, "restore", str(backup), "--yes")
        assert done.returncode == 1
        assert "pg_control is not what was backed up" in done.stderr
        control.unlink()
        assert command(bus.state.root, "restore", str(backup), "--yes").returncode == 1
    finally:
        control.write_bytes(whole)
    assert bus.pid("postgres") == pid, "nothing was touched"


def test_a_restore_asks_first_and_says_how_to_confirm_where_nobody_can_be_asked(bus: Mesh, backup: Path) -> None:
    pid = bus.pid("postgres")
    done = command(bus.state.root, "restore", str(backup))
    assert done.returncode == 1
    assert f"mesh restore {shlex.quote(str(backup))} --yes" in done.stderr
    assert bus.pid("postgres") == pid


def test_what_is_no_backup_or_one_of_another_mesh_is_refused(bus: Mesh, backup: Path, tmp_path: Path) -> None:
    assert command(bus.state.root, "restore", str(tmp_path), "--yes").returncode == 2
    secrets = json.loads((backup / "secrets.json").read_text())
    (tmp_path / "secrets.json").write_text(json.dumps(secrets | {"identity": "another"}))
    (tmp_path / "plan.json").write_text((backup / "plan.json").read_text())
    (tmp_path / "postgres").symlink_to(backup / "postgres")
    done = command(bus.state.root, "restore", str(tmp_path), "--yes")
    assert done.returncode == 2
    assert "another mesh" in done.stderr


def test_a_backup_brings_a_mesh_back_where_nothing_is_left_of_it(bus: Mesh, backup: Path) -> None:
    bus.reset()
    done = command(bus.state.root, "restore", str(backup))
    assert done.returncode == 0, done.stderr
    assert "mesh up" in done.stdout
    Mesh.start(bus.state.root, services=())
    assert bus.databases.state.secret("identity") == json.loads((backup / "secrets.json").read_text())["identity"]
    assert command(bus.state.root, "restored", "--all", "--yes").returncode == 0
    bus.wait_healthy()
    write_change(bus, "org:after-a-backup")
    assert travels(bus, "org:after-a-backup")
