"""What holds of the command and its parts before anything runs."""

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock
from uuid import UUID

import pytest
from typer.testing import CliRunner

from deploy import doctor, flows, jars, process, topics
from deploy.cli import app
from deploy.databases import Databases
from deploy.errors import MeshError
from deploy.jars import Jar
from deploy.plan import Plan, data_plane_names, with_ports
from deploy.process import Command, Running
from deploy.stack import Mesh
from deploy.state import CHECKOUT, State, cache_folder
from deploy.supervisor import pause


def test_a_process_that_ends_again_and_again_is_started_later_and_later() -> None:
    assert [pause(failures) for failures in range(9)] == [0, 0, 0.5, 1, 2, 4, 8, 15, 15]


def test_ports_are_fixed_unless_others_are_asked_for_and_stay_with_a_mesh() -> None:
    usual = with_ports(Plan(), None)
    assert (usual.ports["console"], usual.ports["user"], usual.ports["mail"], usual.ports["postgres"], usual.ports["kafka"]) == (8400, 8401, 8410, 8420, 8421)
    assert with_ports(Plan(), 9400).ports["user"] == 9401
    free = with_ports(Plan(), 0)
    assert not set(free.ports.values()) & set(usual.ports.values())
    assert with_ports(free, None).ports == free.ports


def test_what_is_added_later_gets_the_port_it_would_have_had_from_the_beginning_unless_that_is_taken() -> None:
    alone, both = (with_ports(Plan(data_planes=data_plane_names(count)), 20400) for count in (1, 2))
    added = alone.model_copy(update={"data_planes": data_plane_names(2)})
    assert with_ports(added, None).ports == both.ports
    with socket.socket() as other:
        other.bind(("127.0.0.1", both.ports["dataplane-local-2"]))
        other.listen()
        assert with_ports(added, None).ports.keys() == both.ports.keys()
        assert with_ports(added, None).ports["dataplane-local-2"] != both.ports["dataplane-local-2"]


def test_ports_that_need_privileges_are_told_from_ports_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bind = socket.socket.bind

    def as_an_ordinary_user(self: socket.socket, address: tuple[str, int]) -> None:
        if address[1] < 1024:
            raise PermissionError
        bind(self, address)

    monkeypatch.setattr(socket.socket, "bind", as_an_ordinary_user)
    with pytest.raises(MeshError, match=r"^Ports below 1024 need privileges") as refused:
        Mesh.start(tmp_path, port_base=80)
    assert "mesh up --port-base" in refused.value.hint


def test_an_interrupted_start_says_how_to_go_on_and_how_to_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_STATE", str(tmp_path))
    monkeypatch.setattr(Mesh, "start", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(MeshError, match="Interrupted") as interrupted:
        CliRunner().invoke(app, ["up"], catch_exceptions=False)
    assert (interrupted.value.code, "mesh up" in interrupted.value.hint, "mesh down" in interrupted.value.hint) == (130, True, True)


def test_a_data_plane_with_customers_in_it_is_not_taken_away(tmp_path: Path) -> None:
    with_ports(Plan(data_planes=data_plane_names(2)), 0).save(State(tmp_path))
    with pytest.raises(MeshError, match="only added"):
        Mesh.start(tmp_path, data_planes=1)
    assert Plan.load(State(tmp_path)).data_planes == ("local", "local-2")


def test_a_mesh_of_which_nothing_else_is_known_has_sixteen_partitions_for_as_many_replicas() -> None:
    made_earlier = Plan.model_validate_json("{}")
    assert {topic.num_partitions for topic in topics.topics(made_earlier) if topic.topic.endswith(".changes")} == {16}


def test_state_and_cache_are_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MESH_STATE", "MESH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert State.default().root == CHECKOUT / ".mesh"
    assert cache_folder() == Path.home() / ".cache" / "saas-mesh"
    monkeypatch.setenv("MESH_STATE", str(tmp_path / "a state"))
    monkeypatch.setenv("MESH_CACHE", str(tmp_path / "a cache"))
    assert State.default().root == tmp_path / "a state"
    assert cache_folder() == tmp_path / "a cache"


def test_a_reset_removes_what_a_mesh_has_and_leaves_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MESH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    State.default().secret("operator")
    with pytest.raises(MeshError, match="must be confirmed"):
        CliRunner().invoke(app, ["reset"], catch_exceptions=False)
    assert (tmp_path / "state").exists()
    assert CliRunner().invoke(app, ["reset", "--yes"]).exit_code == 0
    assert not (tmp_path / "state").exists()
    assert (tmp_path / "cache").exists()


def test_who_is_to_start_over_is_asked_first_and_told_how_to_say_so_where_nobody_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_STATE", str(tmp_path))
    with_ports(Plan(), 0).save(State(tmp_path))
    with pytest.raises(MeshError, match="Postgres does not answer"):
        CliRunner().invoke(app, ["restored", "--all"], catch_exceptions=False)
    monkeypatch.setattr(Databases, "restored", AsyncMock(return_value=[]))
    with pytest.raises(MeshError, match=r"No service is held.* must be confirmed") as refused:
        CliRunner().invoke(app, ["restored", "--service", "org"], catch_exceptions=False)
    assert refused.value.hint == "mesh restored --service org --yes"


@pytest.mark.parametrize(
    ("words", "next_step"),
    [("flows show nope", "mesh flows list"), ("flows cancel nope", "mesh flows list"), ("parked retry nope", "mesh parked list"),
     ("restate --service nope", "provisioning"), ("resend --service nope --stream global:plans", "provisioning"), ("restored --service nope", "provisioning"),
     ("resend --service org --stream nonsense", "org:<id>"), ("restate --service org --stream org:7", "org:<id>")],
)  # fmt: skip
def test_what_cannot_be_meant_is_said_in_words_with_the_next_step(words: str, next_step: str) -> None:
    with pytest.raises(MeshError, match=r"nope|nonsense|org:7") as refused:
        CliRunner().invoke(app, words.split(), catch_exceptions=False)
    assert (refused.value.code, next_step in refused.value.hint) == (2, True)


def test_where_nothing_runs_the_doctor_says_so_and_down_promises_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_STATE", str(tmp_path))
    assert re.search(r"mesh +nothing runs here; .* mesh up", CliRunner().invoke(app, ["doctor"]).stdout)
    assert "There is no mesh" in CliRunner().invoke(app, ["down"]).stdout
    with_ports(Plan(), 0).save(State(tmp_path))
    assert "its data is kept" in CliRunner().invoke(app, ["down"]).stdout


def step_of(name: str, at: str | None, queued_ms: int | None = None) -> dict[str, Any]:
    return {"name": name, "state": "met" if at else "pending", "at": at, "service": "org", "queued_ms": queued_ms, "what_to_do": None}


def test_steps_are_told_in_the_order_they_were_met_and_those_to_come_where_they_are_defined(monkeypatch: pytest.MonkeyPatch) -> None:
    start = "2026-01-01T00:00:00Z"
    steps = [step_of("late", "2026-01-01T00:00:02Z", 7), step_of("to come", None), step_of("early", "2026-01-01T00:00:01Z")]
    flow = {"flow": "sign up", "state": "running", "started_at": start, "steps": steps, "deviations": [], "stays": None, "data_age_ms": 3}
    monkeypatch.setattr(flows, "ask", Mock(return_value=flow))
    told = CliRunner().invoke(app, ["flows", "show", str(UUID(int=7))]).stdout
    assert re.findall("early|to come|late", told) == ["early", "to come", "late"]
    assert re.search(r"early +org +1000 ms +–$", told, re.MULTILINE)  # noqa: RUF001 - a dash is meant


def test_a_flow_of_which_nothing_has_come_says_so_and_how_old_the_data_is(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = {"flow": None, "state": "starting", "started_at": None, "steps": [], "deviations": [], "stays": None, "data_age_ms": 95_000}
    monkeypatch.setattr(flows, "ask", Mock(return_value=flow))
    told = CliRunner().invoke(app, ["flows", "show", str(UUID(int=7))]).stdout
    assert "Nothing of this flow has come yet" in told
    assert "95 s old" in told
    assert "mesh lag" in told


@pytest.mark.parametrize("words", ["doctor", "doctor --json", "--help"])
def test_a_reader_that_has_gone_is_no_trouble(tmp_path: Path, words: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | {"MESH_STATE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "deploy.cli", *words.split()], env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.stderr == ""


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[Callable[[str], Running]]:
    """Starts a process under a name of the mesh in ``tmp_path``, which does nothing."""
    state, started = State(tmp_path), []
    state.create()

    def start(name: str) -> Running:
        started.append(process.start(state, Command(name, [sys.executable, "-c", "import time; time.sleep(60)"])))
        return started[-1]

    yield start
    process.stop(started, signal.SIGKILL)


def test_nothing_is_restarted_where_no_supervisor_would_start_it_again(tmp_path: Path, stand_in: Callable[[str], Running]) -> None:
    with pytest.raises(MeshError, match="Nothing runs here") as nothing:
        Mesh(State(tmp_path)).restart("org")
    assert nothing.value.code == 3
    org = stand_in("org")
    with pytest.raises(MeshError, match="No supervisor runs") as alone:
        Mesh(State(tmp_path)).restart("org")
    assert "mesh up" in alone.value.hint
    assert org.alive


def test_the_supervisor_is_neither_offered_to_be_restarted_nor_ended_by_it(tmp_path: Path, stand_in: Callable[[str], Running]) -> None:
    supervisor, _ = stand_in("supervisor"), stand_in("org")
    with pytest.raises(MeshError, match="No process is called nonsense") as offered:
        Mesh(State(tmp_path)).restart("nonsense")
    assert offered.value.hint == "Running: org"
    with pytest.raises(MeshError, match="supervisor") as refused:
        Mesh(State(tmp_path)).restart("supervisor")
    assert "mesh up" in refused.value.hint
    assert supervisor.alive


def test_make_alone_lists_every_target_that_is_for_people() -> None:
    listed = subprocess.run(["make", "-C", CHECKOUT, "--no-print-directory"], capture_output=True, text=True, check=True).stdout
    targets = " ".join(re.findall(r"^\.PHONY: (.*)$", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)).split()
    assert len(targets) > 15
    assert {line.split()[0] for line in listed.splitlines()} == set(targets) - {"python"}


def test_the_help_names_every_command_and_what_exit_codes_mean() -> None:
    told = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).stdout
    for command in ("up", "down", "status", "logs", "restart", "reset", "doctor", "demo", "flows", "mail", "token"):
        assert re.search(rf"^\W*{command} +[A-Z]", told, re.MULTILINE), command
    assert re.search(r"Exit codes: 0 .* 1 .* 2 .* 3 ", told)


def test_the_doctor_names_which_process_holds_a_port(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.create()
    plan = with_ports(Plan(), 0)
    plan.save(state)
    with socket.socket() as other:
        other.bind(("127.0.0.1", plan.ports["kafka"]))
        other.listen()
        (finding,) = [f for f in doctor.examine(state) if not f.ok]
    assert finding.about == "port of kafka"
    assert f"(pid {os.getpid()})" in finding.detail
    assert "mesh up --port-base" in finding.mend


def test_make_names_a_missing_prerequisite_and_what_mends_it() -> None:
    done = subprocess.run(["make", "env", "PYTHON=/nowhere/python3"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed, and /nowhere/python3 is not it." in done.stdout
    assert "apt-get install python3" in done.stdout


def test_make_says_what_to_do_behind_a_proxy_when_packages_cannot_be_fetched() -> None:
    done = subprocess.run(["make", "env", "UV=false", "-W", "uv.lock"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "export UV_SYSTEM_CERTS=true REQUESTS_CA_BUNDLE=/" in done.stdout


class Mirror:
    """Serves one jar; notes what it was asked for."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, locked: bytes, served: bytes) -> None:
        self.jar = Jar("org.example", "thing", "1.0", hashlib.sha256(locked).hexdigest(), len(locked))
        self.asked = 0
        self.folder, self.served = folder, served
        monkeypatch.setenv("MESH_CACHE", str(folder / "cache"))
        monkeypatch.setattr(jars, "locked_jars", lambda: [self.jar])
        monkeypatch.setattr(jars, "_download", self._download)

    def _download(self, _context: Any, _jar: Jar) -> Path:
        self.asked += 1
        path = self.folder / "download"
        path.write_bytes(self.served)
        return path


def test_a_jar_is_fetched_once_for_all_checkouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror(tmp_path, monkeypatch, locked=b"right", served=b"right")
    for _ in range(2):
        jars.fetch()
    assert mirror.asked == 1
    assert mirror.jar.path.read_bytes() == b"right"


def test_a_jar_that_is_not_the_locked_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror(tmp_path, monkeypatch, locked=b"right", served=b"wrong")
    with pytest.raises(MeshError, match="the lock says " + mirror.jar.sha256):
        jars.fetch()
    assert not mirror.jar.path.exists()


def test_every_jar_is_locked_by_its_checksum() -> None:
    locked = jars.locked_jars()
    assert len(locked) > 70
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) and jar.size > 0 for jar in locked)
