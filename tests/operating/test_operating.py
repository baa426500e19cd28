"""The commands of operators, on a mesh that works: what they say, to people and to programs."""

import json
import re
from typing import Any

import pytest

from tests.console.stuck import REACTION, failing_subscriptions, let_die, parked_of
from tests.console.test_flows import ended
from tests.mesh import Customer, TestMesh, eventually

pytestmark = pytest.mark.processes
NOBODYS = "00000000-0000-0000-0000-000000000007"


def said(mesh: TestMesh, *words: str, code: int = 0) -> Any:
    """The JSON answer of a command."""
    done = mesh.command(*words, "--json")
    assert done.returncode == code, done
    return json.loads(done.stdout)


def test_a_stuck_flow_is_found_looked_at_retried_and_done(mesh: TestMesh) -> None:
    with failing_subscriptions(mesh, "Stuck"):
        ann = mesh.sign_up(organization="Stuck")
        parked = parked_of(mesh, ann)
        let_die(mesh, ann)
        eventually(lambda: ann.flow_id in [f["id"] for f in said(mesh, "flows", "list", "--stuck")["items"] if f["state"] == "parked"], timeout=10)
        shown = mesh.command("flows", "show", ann.flow_id).stdout
        assert f"mesh flows retry {ann.flow_id}" in shown
        assert "RaiseError: the plan has a hole" in shown
        assert parked["id"] in mesh.command("parked", "list", "--state", "dead", "--actor", REACTION, "--limit", "200").stdout
        assert said(mesh, "parked", "show", parked["id"])["flow_id"] == ann.flow_id
        assert "fails on" in mesh.command("parked", "show", parked["id"]).stdout
    retried = said(mesh, "flows", "retry", ann.flow_id, "--reason", "the plan is mended")
    assert [r["outcome"] for r in retried["orders"][0]["results"]] == ["tried, and done"]
    assert ended(ann, ann.flow_id)["state"] == "done"


def test_a_parked_change_is_retried_and_skipped_and_its_flow_cancelled(mesh: TestMesh) -> None:
    with failing_subscriptions(mesh, "Left out"):
        ann = mesh.sign_up(organization="Left out")
        parked = parked_of(mesh, ann)
        assert "failed again" in mesh.command("parked", "retry", parked["id"]).stdout
        assert "skipped" in mesh.command("parked", "skip", parked["id"], "--reason", "they wait for a call").stdout
    cancelled = mesh.command("flows", "cancel", ann.flow_id)
    assert cancelled.returncode == 0, cancelled
    assert "What stays" in cancelled.stdout
    assert "organizations" in cancelled.stdout
    assert mesh.command("flows", "skip", ann.flow_id).returncode == 2, "it is over"


def test_streams_are_sent_again_and_restated(mesh: TestMesh, customer: Customer) -> None:
    stream = f"org:{customer.org_id}"
    (resent,) = said(mesh, "resend", "--service", "org", "--stream", stream, "--from", "1", "--to", "1")["orders"]
    assert resent["results"][0]["outcome"] == "1 change sent again"
    assert "1 stream being restated" in mesh.command("restate", "--service", "org", "--stream", stream).stdout
    (unsent,) = said(mesh, "resend", "--service", "org", "--stream", f"org:{customer.user_id}", code=1)["orders"]
    assert unsent["results"][0]["outcome"] == "there is no such stream here"
    (beyond,) = said(mesh, "resend", "--service", "org", "--stream", stream, "--from", "9000", code=1)["orders"]
    assert "none of these numbers is kept" in beyond["results"][0]["outcome"]
    (nothing,) = said(mesh, "restate", "--service", "billing", "--stream", f"org:{customer.user_id}", code=1)["orders"]
    assert nothing["results"][0]["outcome"] == "there is no such stream here"


@pytest.mark.parametrize(
    ("words", "next_step"),
    [("parked retry", "mesh parked retry ID"), (f"flows show {NOBODYS}", "mesh flows list"), (f"flows retry {NOBODYS}", "mesh flows list"),
     (f"parked show {NOBODYS}", "mesh parked list")],
)  # fmt: skip
def test_what_makes_no_sense_is_said_and_exits_2(mesh: TestMesh, words: str, next_step: str) -> None:
    done = mesh.command(*words.split())
    assert done.returncode == 2
    assert "member" not in done.stderr
    assert next_step in done.stderr


def test_lag_tells_the_age_of_every_part(mesh: TestMesh, customer: Customer) -> None:
    assert ended(customer, customer.flow_id)["state"] == "done"

    def healthy() -> bool:
        services = said(mesh, "lag")["services"]
        assert set(services) == set(mesh.urls)
        for name, one in services.items():
            assert one["slot"]["active"]
            assert one["slot"]["age_seconds"] < 10
            assert one["log"]["age_seconds"] < 10
            assert one["log"]["records"] > 0
            assert one["log"]["reaches_back_seconds"] > one["log"]["age_seconds"]
            topics = {t["topic"]: t for t in one["topics"]}
            assert topics[f"{name}.changes"]["end"] > 0
            assert topics[f"{name}.changes"]["age_seconds"] < 30
            assert all(0 <= t["behind"] <= t["end"] for t in one["topics"])
        org = {s["source"]: s for s in services["billing"]["sources"]}["org"]
        assert org["streams"] > 0
        assert org["heads_age_seconds"] < 15
        return True

    eventually(healthy, timeout=30)
    shown = mesh.command("lag")
    assert shown.returncode == 0
    for heads in (
        r"service +epoch +slot +connected +not read",
        r"topic +records +newest +reader +read +behind",
        r"reader +source +streams +heads heard +behind",
    ):
        assert re.search(rf"^ *{heads}", shown.stdout, re.MULTILINE), heads
    assert re.search(r"^ *org\.changes +\d+ +\d+\.\d s ago +billing +\d+ +\d+$", shown.stdout, re.MULTILINE)
    assert mesh.anyone.get("org", "/lag").status_code == 401
    assert customer.get("org", "/lag").status_code == 403


def test_lag_grows_for_who_is_away_and_says_who_does_not_answer(mesh: TestMesh) -> None:
    mesh.mesh.hold("notification")
    mesh.mesh.kill("notification")
    try:
        done = mesh.command("lag", "--json")
        assert done.returncode == 1
        assert "does not answer" in json.loads(done.stdout)["services"]["notification"]["error"]
        age = {s["source"]: s["heads_age_seconds"] for s in mesh.operator.get("console", "/lag").json()["sources"]}
        later = eventually(
            lambda: (
                now
                if (now := {s["source"]: s["heads_age_seconds"] for s in mesh.operator.get("console", "/lag").json()["sources"]})["notification"] > 6
                else None
            )
        )
        assert later["notification"] > age["notification"]
        assert later["org"] < 6
    finally:
        mesh.mesh.release("notification")
    mesh.mesh.wait_healthy()
