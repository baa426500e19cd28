"""The ``mesh`` command speaks to people and to programs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.stack import Mesh
from tests.deploy.bus import restore_postgres, stop_postgres, travels, write_change

pytestmark = pytest.mark.timeout(300)

STATUS = {"healthy", "services", "agents", "kafka", "connect", "postgres", "data_planes", "supervisor"}


def mesh(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MESH_STATE": str(folder), "NO_COLOR": "1"}
    return subprocess.run([sys.executable, "-m", "deploy.cli", *words], env=environment, text=True, capture_output=True, check=False)


def test_without_a_mesh_every_look_says_how_to_start_one(tmp_path: Path) -> None:
    for words in (["status"], ["status", "--json"], ["token"], ["mail", "list"]):
        done = mesh(tmp_path, *words)
        assert done.returncode == 3, words
        assert "mesh up" in done.stderr


def test_down_of_nothing_is_well(tmp_path: Path) -> None:
    assert mesh(tmp_path, "down").returncode == 0


def test_what_is_not_understood_exits_2(tmp_path: Path) -> None:
    for words in (["nonsense"], ["logs", "nonsense"], ["up", "--replicas", "nonsense=2"]):
        assert mesh(tmp_path, *words).returncode == 2, words


def test_the_status_is_the_document_of_the_contract(bus: Mesh) -> None:
    done = mesh(bus.state.root, "status", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert document["healthy"] is True
    assert document.keys() >= STATUS
    assert document["postgres"]["pid"] == bus.pid("postgres")
    assert [plane["id"] for plane in document["data_planes"]] == ["local"]


def test_secrets_are_shown_on_demand_only(bus: Mesh) -> None:
    secrets = json.loads((bus.state.root / "secrets.json").read_text()).values()
    quiet, open_ = mesh(bus.state.root, "status", "--json"), mesh(bus.state.root, "status", "--json", "--show-secrets")
    assert [secret for secret in secrets if secret in quiet.stdout] == []
    document = json.loads(open_.stdout)
    assert document["kafka"]["admin"]["username"] == "admin"
    assert document["postgres"]["url"].startswith("postgresql://postgres:")
    assert document["data_planes"][0]["url"].startswith("postgresql://postgres:")
    assert document["operator_token"] == mesh(bus.state.root, "token").stdout.strip()


def test_the_output_is_plain_where_there_is_no_terminal(bus: Mesh) -> None:
    for words in (["status"], ["doctor"]):
        assert "\x1b" not in mesh(bus.state.root, *words).stdout


def test_the_doctor_names_what_is_wrong_and_what_mends_it(bus: Mesh) -> None:
    well = json.loads(mesh(bus.state.root, "doctor", "--json").stdout)
    assert well["healthy"] is True
    bus.kill("supervisor")
    sick = mesh(bus.state.root, "doctor", "--json")
    assert sick.returncode == 1
    (finding,) = [finding for finding in json.loads(sick.stdout)["findings"] if not finding["ok"]]
    assert finding["about"] == "supervisor"
    assert "mesh up" in finding["mend"]
    Mesh.start(bus.state.root, services=())


@pytest.mark.parametrize("name", ["postgres", "kafka"])
def test_logs_are_printed(bus: Mesh, name: str) -> None:
    assert mesh(bus.state.root, "logs", name).stdout.strip()


def test_a_restored_database_is_found_and_one_command_goes_on_with_it(bus: Mesh, tmp_path: Path) -> None:
    data, backup = stop_postgres(bus), tmp_path / "backup"
    shutil.copytree(data, backup)
    bus.release("postgres")
    bus.wait_healthy()
    write_change(bus, "org:lost")
    assert travels(bus, "org:lost")
    restore_postgres(bus, backup)
    findings = json.loads(mesh(bus.state.root, "doctor", "--json").stdout)["findings"]
    (finding,) = [f for f in findings if f["about"] == "database"]
    assert not finding["ok"]
    assert "mesh restored" in finding["mend"]
    done = mesh(bus.state.root, "restored", "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["epochs"].values()) == {2}
    bus.wait_healthy()
    write_change(bus, "org:after")
    assert travels(bus, "org:after"), "the connector goes on where the database is, not where it was"
    assert mesh(bus.state.root, "restored", "--nothing-lost", "--service", "org").returncode == 0
    assert mesh(bus.state.root, "restored", "--service", "nobody").returncode == 2
