"""What can be known of docker-compose.yml and of our image without a container engine."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

from deploy import containers
from deploy.contracts import ROOT
from deploy.contracts.compose import COMPOSE, text
from deploy.environment import Environment
from deploy.errors import MeshError
from deploy.plan import Plan, with_ports
from deploy.setup import Given
from deploy.state import State
from deploy.units import units
from services.agent.settings import Settings as AgentSettings
from shared.settings import Settings
from tests import containers as engine

DOCUMENT: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
PARTS: dict[str, dict[str, Any]] = DOCUMENT["services"]
OURS = {name: part for name, part in PARTS.items() if part["image"] == containers.OURS}
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
_EXACT = re.compile(r"^[\w.\-/]+:(\d+\.\d+[\w.\-]*)(@sha256:[0-9a-f]{64})?$")


def module_of(part: dict[str, Any]) -> str:
    """The module that a container of ours runs."""
    python, option, module = part["command"][:3]
    assert (python, option) == ("python", "-m")
    return str(module)


def variables(part: dict[str, Any]) -> set[str]:
    return set(part.get("environment") or {})


def test_the_file_is_what_the_code_says() -> None:
    assert COMPOSE.read_text() == text(), "write it with: make compose"


def test_the_file_follows_the_compose_specification() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_image_that_is_not_built_here_is_pinned() -> None:
    bases = [line.split()[1] for line in DOCKERFILE.splitlines() if line.startswith("FROM ")]
    taken = [part["image"] for part in PARTS.values() if "build" not in part]
    assert {image.partition(":")[0] for image in taken} == {"postgres", "apache/kafka", "quay.io/debezium/connect"}
    for image in [*bases, *taken]:
        assert _EXACT.match(image), image
    assert not _EXACT.match("postgres:18")
    assert not _EXACT.match("postgres")


def test_debezium_and_kafka_are_those_of_the_local_stack() -> None:
    jars = [line.split() for line in (ROOT / "deploy" / "jars.lock").read_text().splitlines()]
    locked = dict(jar[0].rsplit(":", 1) for jar in jars if len(jar) == 3)
    assert containers.IMAGES["connect"].endswith(f":{locked['io.debezium:debezium-connector-postgres']}")
    assert containers.IMAGES["kafka"].rpartition(":")[2].startswith(locked["org.apache.kafka:kafka-server"].rpartition(".")[0])


def test_everything_that_runs_locally_has_its_container(tmp_path: Path) -> None:
    local = {unit.name for unit in units(State(tmp_path), with_ports(Plan(), 8400))} | {"supervisor"}
    assert set(PARTS) == local | {"setup"}


@pytest.mark.parametrize("name", [name for name in OURS if name.startswith(("agent-", *Plan().services))])
def test_a_service_is_told_what_its_settings_know_and_all_that_they_need(name: str) -> None:
    settings: type[BaseSettings] = AgentSettings if name.startswith("agent-") else Settings
    told, known = variables(OURS[name]), {field.upper() for field in settings.model_fields}
    assert {one for one in told - known if not one.startswith("OTEL_")} == set()
    assert {field.upper() for field, about in settings.model_fields.items() if about.is_required()} <= told


@pytest.mark.parametrize("name", [name for name in OURS if name.startswith(("agent-", *Plan().services))])
def test_a_container_is_told_the_same_variables_as_its_process_of_the_local_stack(name: str, tmp_path: Path) -> None:
    local = Environment(State(tmp_path), with_ports(Plan(), 8400), tracing={})
    told = local.agent(name.removeprefix("agent-")) if name.startswith("agent-") else local.service(name)
    passed_on = {key for key, value in OURS[name]["environment"].items() if value is None}
    assert variables(OURS[name]) - passed_on == set(told)


@pytest.mark.parametrize("name", ["mail", "stripe"])
def test_a_double_is_told_exactly_what_it_reads(name: str) -> None:
    assert variables(OURS[name]) == set(read_variables(source_of(OURS[name])))


def source_of(part: dict[str, Any]) -> str:
    """Read, not imported: what stands in for others need not be free of warnings."""
    return (ROOT / module_of(part).replace(".", "/")).with_suffix(".py").read_text()


def read_variables(source: str) -> list[str]:
    """The names it looks up in its environment."""
    subscripts = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Subscript))
    return [node.slice.value for node in subscripts if isinstance(node.slice, ast.Constant) and ast.unparse(node.value) in ("env", "os.environ")]


@pytest.mark.parametrize("name", OURS)
def test_a_container_of_ours_runs_a_module_that_exists_and_has_no_rights(name: str) -> None:
    assert 'if __name__ == "__main__":' in source_of(OURS[name])
    assert OURS[name]["cap_drop"] == ["ALL"]
    assert OURS[name]["build"]["dockerfile"] == "deploy/Dockerfile"


OF_PEOPLE = ("CONSOLE_URL", "PUBLIC_URL", "USER_URL", "ORG_URL", "PROVISIONING_URL")
"""Addresses without a password, where people come in."""


def test_no_password_is_in_the_file_and_every_one_is_asked_for(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    containers.prepare(state, tmp_path / ".env")
    lines = [line for line in (tmp_path / ".env").read_text().splitlines() if not line.startswith("#")]
    given = dict(line.split("=", 1) for line in lines)
    asked = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))
    assert given.keys() == asked
    assert all(len(value) >= 32 for value in given.values())
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert not [value for value in given.values() if value in COMPOSE.read_text()]
    for part in PARTS.values():
        for name, value in (part.get("environment") or {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|API_KEY|_URL$", name) and value and name not in OF_PEOPLE:
                assert re.search(r"\$\{MESH_\w+\}", value), name


def test_the_setup_is_given_the_plan_and_every_password_and_makes_none_up(tmp_path: Path) -> None:
    for name in ("setup", "supervisor"):
        assert {config["source"] for config in PARTS[name]["configs"]} == {"plan.json", "secrets.json"}
    told = json.loads(DOCUMENT["configs"]["secrets.json"]["content"])
    assert Plan.model_validate_json(DOCUMENT["configs"]["plan.json"]["content"]) == containers.inside()
    asked = containers.Variables(tmp_path)
    containers.Compose(asked).document()
    assert set(told) == asked.asked
    (tmp_path / "secrets.json").write_text(json.dumps(told))
    given = Given(tmp_path)
    assert all(given.secret(name) == told[name] for name in told)
    with pytest.raises(MeshError, match="not given the password postgres:nobody"):
        given.secret("postgres:nobody")
    assert json.loads((tmp_path / "secrets.json").read_text()) == told


def test_passwords_stay_when_they_are_written_again_and_a_strangers_file_stays_too(tmp_path: Path) -> None:
    state, file = State(tmp_path / "state"), tmp_path / ".env"
    containers.prepare(state, file)
    first = file.read_text()
    containers.prepare(state, file)
    assert file.read_text() == first
    file.write_text("MINE=1\n")
    with pytest.raises(MeshError, match="not written by this command"):
        containers.prepare(state, file)
    assert file.read_text() == "MINE=1\n"


def test_doors_are_published_on_loopback_only_and_where_this_machine_looks_for_them() -> None:
    published = [port for part in PARTS.values() for port in part.get("ports", [])]
    assert published
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in published)
    doors = {int(port.rpartition(":")[2]) for port in published}
    outside = containers.outside()
    assert doors == {port for name, port in outside.ports.items() if name != "kafka-controller"}


def test_everything_that_is_waited_for_can_be_seen_to_be_ready() -> None:
    for name, part in PARTS.items():
        for other, how in part.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in PARTS[other], (name, other)
            else:
                assert (other, how["condition"]) == ("setup", "service_completed_successfully")
                assert "restart" not in PARTS[other]
    assert all("healthcheck" in PARTS[name] for name in Plan().services)


def test_files_and_volumes_that_containers_name_are_there_and_used() -> None:
    configs = {config["source"] for part in PARTS.values() for config in part.get("configs", [])}
    volumes = {volume.partition(":")[0] for part in PARTS.values() for volume in part.get("volumes", [])}
    assert configs == set(DOCUMENT["configs"])
    assert volumes == set(DOCUMENT["volumes"])


def test_the_image_holds_no_state_runs_as_nobody_special_and_takes_the_locked_packages() -> None:
    copied = [line.split() for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    sources = {word for line in copied for word in line[1:-1] if not line[1].startswith("--from")}
    assert sources == {"pyproject.toml", "uv.lock", "shared", "schemas", "services", "deploy"}
    assert "uv sync --frozen --no-dev" in DOCKERFILE
    assert re.search(r"\buv==\d+\.\d+\.\d+\b", DOCKERFILE)
    assert re.findall(r"(?m)^USER (\w+)$", DOCKERFILE) == ["mesh"]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert "*" in ignored
    assert allowed == sources


def test_without_an_engine_the_option_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.UsageError, match=r"no command `docker` here.*\n.*docker info.*pytest --stack=local"):
        engine.require_engine()


def test_an_engine_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\necho 'Is the daemon running?' >&2\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.UsageError, match=r"`docker info` says 'Is the daemon running\?'"):
        engine.require_engine()
