"""Alerts, runbook and dashboard speak of what a running mesh exports, of commands that there are, and of each other."""

import json
import re
import shlex
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import typer
import typer.main
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.cli import app
from deploy.plan import DEFAULT_PORT_BASE, SERVICES, Plan, with_ports
from services.console.folding import FlowState
from tests.console.test_flows import ended
from tests.mesh import HTTP, Customer, TestMesh, eventually
from tests.rules.files import ROOT

FOLDER = ROOT / "deploy" / "prometheus"
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
RULES: list[dict[str, Any]] = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
TESTED = yaml.safe_load((FOLDER / "alerts.test.yml").read_text())["tests"]
PANELS: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]

ASKED = [rule["expr"] for rule in RULES] + [target["expr"] for panel in PANELS for target in panel["targets"]]
"""Every expression that Prometheus is asked."""

OF_PROMETHEUS = {"service", "job", "instance", "le"}
"""Labels that prometheus.yml adds, or that every histogram has."""

_SELECTOR = re.compile(r"\b(?P<metric>mesh_\w+)(?:\{(?P<matchers>[^}]*)\})?")
_MATCHER = re.compile(r'(?P<label>\w+)\s*(?P<how>=~|!~|!=|=)\s*"(?P<value>[^"]*)"')
_BY = re.compile(r"\bby \(([^)]*)\)")
_SECTION = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_MISUNDERSTOOD = typer.BadParameter.__mro__[1]  # UsageError of the click inside of typer
_LOOKS = re.compile(r"mesh (status|doctor|lag|logs|flows list|parked list)\b")


def commands(text: str) -> Iterator[str]:
    """The lines of its shell blocks in which ``mesh`` is called."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from (line.partition("  #")[0].strip() for line in block.splitlines() if line.startswith("mesh "))


def scraped(mesh: TestMesh) -> dict[str, dict[str, set[str]]]:
    """Every sample that Prometheus would take from the services now: name → label → its values."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for url in mesh.urls.values():
        for family in text_string_to_metric_families(HTTP.get(f"{url}/metrics").text):
            for sample in family.samples:
                labels = found[sample.name]
                for label, value in sample.labels.items():
                    labels[label].add(value)
    return found


def wrong(expression: str, exported: dict[str, dict[str, set[str]]]) -> list[str]:
    """What the expression asks for and nobody exports."""
    selectors = list(_SELECTOR.finditer(expression))
    known = {label for s in selectors for label in exported.get(s["metric"], {})} | OF_PROMETHEUS
    found = [f"no metric {s['metric']}" for s in selectors if s["metric"] not in exported]
    found += [f"no label {label}" for by in _BY.findall(expression) for label in re.findall(r"\w+", by) if label not in known]
    for s in selectors:
        for m in _MATCHER.finditer(s["matchers"] or ""):
            values = (
                set(get_args(FlowState)) if (s["metric"], m["label"]) == ("mesh_flows_now", "state") else exported.get(s["metric"], {}).get(m["label"], set())
            )
            if m["label"] not in known:
                found.append(f"no label {m['label']} of {s['metric']}")
            elif m["label"] in ("state", "outcome", "kind") and m["how"] in ("=", "=~"):
                found += [f"{s['metric']} is never {value}" for value in m["value"].split("|") if value not in values]
    return found


def test_everything_that_an_alert_or_the_dashboard_asks_for_is_exported_by_a_running_mesh(mesh: TestMesh, customer: Customer) -> None:
    assert ended(customer, customer.flow_id)["state"] == "done"
    assert len(ASKED) > 30

    def nothing_is_wrong() -> bool:
        exported = scraped(mesh)
        found = [f"{expression}: {what}" for expression in ASKED for what in wrong(expression, exported)]
        assert not found, "\n".join(found)
        return True

    eventually(nothing_is_wrong, timeout=20)


@pytest.mark.parametrize(
    "expression",
    ["mesh_nothing_total > 0", 'mesh_parked_now{state="gone"} > 0', 'mesh_parked_now{color="red"} > 0', "max by (color) (mesh_parked_now) > 0",
     'mesh_flows_now{state=~"lost|stuck"} > 0'],
)  # fmt: skip
def test_what_nobody_exports_is_caught(expression: str) -> None:
    exported = {"mesh_parked_now": {"state": {"dead", "retrying"}}, "mesh_flows_now": {"state": {"running"}}}
    assert wrong(expression, exported)
    assert not wrong('max by (state, service) (mesh_parked_now{state=~"dead|retrying"}) > 0', exported)


def test_every_alert_has_a_section_of_the_runbook_and_every_section_an_alert() -> None:
    sections = dict(_SECTION.findall(RUNBOOK))
    assert set(sections) == {rule["alert"] for rule in RULES}
    for rule in RULES:
        name = rule["alert"]
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        for part in ("**Means.**", "**Look.**", "**Do.**", "```sh"):
            assert part in sections[name], (name, part)


def test_every_alert_is_raised_in_a_test_of_the_rules() -> None:
    raised = {one["alertname"] for test in TESTED for one in test["alert_rule_test"] if one["exp_alerts"]}
    assert raised == {rule["alert"] for rule in RULES}


def test_the_dashboard_names_alerts_that_there_are() -> None:
    named = {name for panel in PANELS for name in re.findall(r"\bMesh[A-Z]\w+", panel["description"])}
    assert named
    assert named <= {rule["alert"] for rule in RULES}


def test_prometheus_scrapes_every_service_on_its_default_port() -> None:
    (job,) = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    scrapes = {target["labels"]["service"]: target["targets"] for target in job["static_configs"]}
    ports = with_ports(Plan(), DEFAULT_PORT_BASE).ports
    assert scrapes == {service: [f"127.0.0.1:{ports[service]}"] for service in SERVICES}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt-get install prometheus)")
@pytest.mark.parametrize("words", ["check rules alerts.yml", "check config prometheus.yml", "test rules alerts.test.yml"])
def test_prometheus_accepts_the_rules_and_raises_each_alert_when_it_should(words: str) -> None:
    done = subprocess.run(["promtool", *words.split()], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


_SOME_ID = "01a201fc-f76d-77be-90f9-a8efe2a86e16"
_FILLED = {"service": "org", "owner": "org", "stream": f"org:{_SOME_ID}"}


def understood(line: str) -> str | None:
    """None when the ``mesh`` command understands the line; else why not. Runs nothing."""
    words = shlex.split(re.sub(r"<(\w+)>", lambda blank: _FILLED.get(blank[1], _SOME_ID), line))[1:]
    command: Any = typer.main.get_command(app)
    try:
        while hasattr(command, "resolve_command"):
            _, command, words = command.resolve_command(command.context_class(command, info_name="mesh"), words)
        command.make_context(command.name, list(words))
    except _MISUNDERSTOOD as error:
        return str(error)
    return None


@pytest.mark.parametrize("document", ["docs/runbook.md", "docs/operating.md"])
def test_every_command_of_the_documents_for_operators_is_one(document: str) -> None:
    lines = set(commands((ROOT / document).read_text()))
    assert lines
    assert not {line: why for line in lines if (why := understood(line))}


@pytest.mark.parametrize("line", ["mesh nothing", "mesh flows list --nothing", "mesh flows show", "mesh parked nothing", "mesh up --replicas"])
def test_a_command_that_there_is_not_is_caught(line: str) -> None:
    assert understood(line)
    assert not understood("mesh flows retry <flow>")


@pytest.mark.processes
@pytest.mark.parametrize("line", sorted({line for line in commands(RUNBOOK) if _LOOKS.match(line) and "<" not in line}))
def test_every_look_of_the_runbook_is_answered_by_a_running_mesh(mesh: TestMesh, line: str) -> None:
    done = mesh.command(*shlex.split(line)[1:])
    assert done.returncode == 0, done
