"""The ``mesh`` command speaks to people and to programs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.plan import Plan, with_ports
from deploy.stack import Mesh
from deploy.state import State
from tests.command import command
from tests.deploy.bus import pids, restore_postgres, stop_postgres, travels, write_change

pytestmark = pytest.mark.timeout(300)

STATUS = {"healthy", "services", "agents", "kafka", "connect", "postgres", "data_planes", "supervisor"}


def processes(folder: Path, *commands: str) -> list[subprocess.CompletedProcess[str]]:
    """The commands as a shell runs them, side by side."""
    environment = {**os.environ, "MESH_STATE": str(folder), "NO_COLOR": "1"}

    def run(command: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "deploy.cli", *shlex.split(command)]
        return subprocess.run(words, env=environment, text=True, capture_output=True, check=False)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(run, commands))


def test_without_a_mesh_every_look_says_how_to_start_one(tmp_path: Path) -> None:
    for done in processes(tmp_path, "status", "status --json", "token", "mail list"):
        assert done.returncode == 3, done.args
        assert "mesh up" in done.stderr


def test_a_mesh_that_is_down_says_how_to_start_it(tmp_path: Path) -> None:
    with_ports(Plan(), 0).save(State(tmp_path))
    hints = {
        "lag": "mesh up",
        "lag --json": "mesh up",
        f"backup {shlex.quote(str(tmp_path / 'copy'))}": "mesh up",
        "flows list": "mesh up",
        "mail list": "mesh up",
    }
    for line, hint in hints.items():
        done = command(tmp_path, *shlex.split(line))
        assert (done.returncode, hint in done.stderr) == (3, True), (line, done.stderr)
    assert not (tmp_path / "copy").exists()


def test_down_of_nothing_is_well(tmp_path: Path) -> None:
    assert command(tmp_path, "down").returncode == 0


def test_what_is_not_understood_exits_2(tmp_path: Path) -> None:
    for line in ("nonsense", "logs nonsense", "up --replicas nonsense=2", "logs org -n 0", "logs org -n -3", "mail list --limit -1"):
        assert command(tmp_path, *shlex.split(line)).returncode == 2, line


def test_the_status_is_the_document_of_the_contract(bus: Mesh) -> None:
    done = command(bus.state.root, "status", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert document["healthy"] is True
    assert document.keys() >= STATUS
    assert document["postgres"]["pid"] == bus.pid("postgres")
    assert [plane["id"] for plane in document["data_planes"]] == ["local"]


def test_secrets_are_shown_on_demand_only(bus: Mesh) -> None:
    secrets = json.loads((bus.state.root / "secrets.json").read_text()).values()
    asked = ("status --json", "status --json --show-secrets", "status --show-secrets", "token")
    quiet, open_, shown, token = (command(bus.state.root, *line.split()) for line in asked)
    assert [secret for secret in secrets if secret in quiet.stdout] == []
    document = json.loads(open_.stdout)
    assert document["kafka"]["admin"]["username"] == "admin"
    assert document["postgres"]["url"].startswith("postgresql://postgres:")
    assert document["data_planes"][0]["url"].startswith("postgresql://postgres:")
    assert document["operator_token"] == token.stdout.strip()
    assert f"connect  {document['connect']['username']} / {document['connect']['password']}\n" in shown.stdout


def test_the_output_is_plain_where_there_is_no_terminal(bus: Mesh) -> None:
    for done in processes(bus.state.root, "status", "doctor"):
        assert "\x1b" not in done.stdout


def test_the_doctor_names_what_is_wrong_and_what_mends_it(bus: Mesh) -> None:
    well = json.loads(command(bus.state.root, "doctor", "--json").stdout)
    assert well["healthy"] is True
    bus.kill("supervisor")
    sick = command(bus.state.root, "doctor", "--json")
    assert sick.returncode == 1
    (finding,) = [finding for finding in json.loads(sick.stdout)["findings"] if not finding["ok"]]
    assert finding["about"] == "supervisor"
    assert "mesh up" in finding["mend"]
    status = command(bus.state.root, "status", "--json")
    assert (status.returncode, json.loads(status.stdout)["healthy"]) == (1, False)
    Mesh.start(bus.state.root, services=())


@pytest.mark.parametrize("name", ["postgres", "kafka"])
def test_logs_are_printed(bus: Mesh, name: str) -> None:
    assert command(bus.state.root, "logs", name).stdout.strip()


def test_a_log_is_followed(bus: Mesh) -> None:
    environment = {**os.environ, "MESH_STATE": str(bus.state.root)}
    argv = [sys.executable, "-m", "deploy.cli", "logs", "-f", "-n", "1", "supervisor"]
    with subprocess.Popen(argv, env=environment, text=True, stdout=subprocess.PIPE) as following:
        assert following.stdout
        assert following.stdout.readline().strip()
        with bus.state.log("supervisor").open("a") as log:
            log.write("written meanwhile\n")
        assert following.stdout.readline().strip() == "written meanwhile"
        following.terminate()


def test_one_process_is_restarted_and_the_others_run_on(bus: Mesh) -> None:
    before = pids(bus)
    old = bus.pid("dataplane-local")
    done = command(bus.state.root, "restart", "dataplane-local")
    assert done.returncode == 0, done.stderr
    assert pids(bus) - before == {bus.pid("dataplane-local")}
    assert before - pids(bus) == {old}
    assert re.search(r"INFO dataplane-local ended, as ordered: .*(?<!None)$", bus.state.log("supervisor").read_text(), re.MULTILINE)


def test_a_second_data_plane_is_started_beside_the_first_and_ended_again(bus: Mesh) -> None:
    before = pids(bus) - {bus.pid("supervisor")}
    Mesh.start(bus.state.root, services=(), data_planes=2)
    planes = bus.status()["data_planes"]
    assert [(plane["id"], plane["state"]) for plane in planes] == [("local", "up"), ("local-2", "up")]
    assert planes[0]["port"] != planes[1]["port"]
    assert {"dataplane.local-2.assignments", "dataplane.local-2.reports"} <= bus.broker.admin().list_topics(timeout=10).topics.keys()
    assert before <= pids(bus), "nothing else was started again"
    Mesh.start(bus.state.root, services=(), data_planes=1)
    assert bus.pid("dataplane-local-2") is None


def test_a_folder_with_a_space_in_its_name_will_do(bus: Mesh) -> None:
    assert " " in str(bus.state.root)
    assert bus.status()["healthy"]


def test_a_restored_database_is_found_and_one_command_goes_on_with_it(bus: Mesh, tmp_path: Path) -> None:
    data, backup = stop_postgres(bus), tmp_path / "backup"
    shutil.copytree(data, backup)
    bus.release("postgres")
    bus.wait_healthy()
    write_change(bus, "org:lost")
    assert travels(bus, "org:lost")
    restore_postgres(bus, backup)
    findings = json.loads(command(bus.state.root, "doctor", "--json").stdout)["findings"]
    (finding,) = [f for f in findings if f["about"] == "database"]
    assert not finding["ok"]
    assert "mesh restored" in finding["mend"]
    unsaid = command(bus.state.root, "restored")
    assert (unsaid.returncode, "mesh restored --all" in unsaid.stderr) == (2, True)
    unconfirmed = command(bus.state.root, "restored", "--all")
    assert (unconfirmed.returncode, "mesh restored --all --yes" in unconfirmed.stderr) == (1, True)
    assert "not the database they wrote into: user, org" in unconfirmed.stderr
    done = command(bus.state.root, "restored", "--all", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert min(json.loads(done.stdout)["epochs"].values()) > 1
    assert "No service is held" in command(bus.state.root, "restored", "--all").stderr
    bus.wait_healthy()
    write_change(bus, "org:after")
    assert travels(bus, "org:after"), "the connector goes on where the database is, not where it was"
    assert command(bus.state.root, "restored", "--nothing-lost", "--service", "org").returncode == 0
    assert command(bus.state.root, "restored", "--service", "nobody").returncode == 2
