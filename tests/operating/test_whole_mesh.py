"""What a person sees of a mesh with all of its services: the command, and the story that the demo tells."""

import asyncio
import json
import re

import pytest

from deploy import process
from deploy.demo import Demo
from deploy.plan import SERVICES
from tests.console.test_flows import ended
from tests.mesh import Customer, TestMesh, eventually


@pytest.mark.processes
def test_the_status_is_the_document_that_programs_rely_on(mesh: TestMesh) -> None:
    done = mesh.command("status", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["healthy"]) == (0, True)
    assert document["services"].keys() == {"user", "org", "billing", "notification", "provisioning", "console"}
    for service in document["services"].values():
        assert service["url"].startswith("http://127.0.0.1:")
        assert service["state"] == "up"
        assert service["pids"] == [service["pid"]]
    assert [(a["id"], a["state"]) for a in document["agents"]] == [("local", "up")]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", document["kafka"]["bootstrap"])
    assert document["connect"]["url"].startswith("http://127.0.0.1:")
    for server in (document["postgres"], *document["data_planes"]):
        assert (server["host"], type(server["port"])) == ("127.0.0.1", int)
    assert [plane["id"] for plane in document["data_planes"]] == ["local"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", document["mail"]["smtp"])
    assert document["mail"]["url"].endswith("/messages")
    assert document["stripe"]["url"].startswith("http://127.0.0.1:")
    one_pid = [document[name] for name in ("kafka", "connect", "postgres", "mail", "stripe", "supervisor")] + document["agents"] + document["data_planes"]
    assert all(type(part["pid"]) is int for part in one_pid)


@pytest.mark.processes
def test_every_process_has_a_log_of_its_own(mesh: TestMesh) -> None:
    running = process.recorded(mesh.mesh.state)
    assert len(running) == 14, "the bus, two servers of Postgres, mail, Stripe, six services, an agent, the supervisor"
    assert all(mesh.mesh.state.log(name).exists() for name in running)


@pytest.mark.processes
def test_a_schema_that_is_no_services_stays_out_of_the_publication(mesh: TestMesh) -> None:
    """The connector may not write its topic, and would fail for everybody."""
    mesh.rows("CREATE SCHEMA strange CREATE TABLE changes (stream text, payload text)")
    try:
        asyncio.run(mesh.mesh.databases.prepare())
        published = {r["schemaname"] for r in mesh.rows("SELECT schemaname FROM pg_publication_tables WHERE pubname = 'mesh'")}
    finally:
        mesh.rows("DROP SCHEMA strange CASCADE")
    assert published == set(SERVICES)


@pytest.mark.processes
def test_a_local_mesh_has_few_partitions_that_everybody_pays_for(mesh: TestMesh) -> None:
    known = mesh.mesh.broker.admin().list_topics(timeout=10).topics
    assert {len(known[f"{service}.changes"].partitions) for service in SERVICES} == {4}


def test_up_tells_each_step_with_its_seconds_then_links_masked_credentials_and_what_to_try_next(mesh: TestMesh) -> None:
    before = {name: one.pid for name, one in process.recorded(mesh.mesh.state).items() if name != "supervisor"}
    told = mesh.command("up").stdout
    assert {name: one.pid for name, one in process.recorded(mesh.mesh.state).items() if name != "supervisor"} == before, "what runs is adopted"
    steps, _, links = told.partition("The mesh is up after ")
    for step in ("postgres", "kafka", "connect", "connectors", "org", "agent-local"):
        assert re.search(rf"^ *{step} +\d+\.\d s  ready$", steps, re.MULTILINE), step
    groups = re.findall(r"^(\S.*)$", links.partition("\n")[2], re.MULTILINE)
    assert groups == ["Services", "Mail and cards", "Bus and databases", "Next"]
    for name, url in mesh.urls.items():
        assert re.search(rf"^ *{name} +{url}/docs$", links, re.MULTILINE), name
    for address in (mesh.status["mail"]["url"], mesh.status["stripe"]["url"], mesh.status["kafka"]["bootstrap"], mesh.status["connect"]["url"]):
        assert address in links
    secrets = json.loads((mesh.mesh.state.root / "secrets.json").read_text()).values()
    assert not [secret for secret in secrets if secret in told]
    assert "admin / " + mesh.status["kafka"]["admin"]["password"][:3] + "…" in links
    assert len(re.findall(r"^ *mesh \w+", links.partition("Next")[2], re.MULTILINE)) == 3


def test_flows_are_listed_and_shown_for_people_and_programs(mesh: TestMesh) -> None:
    customer = mesh.sign_up()
    assert ended(customer, customer.flow_id)["state"] == "done"
    listed = json.loads(mesh.command("flows", "list", "--flow", "sign up", "--state", "done", "--limit", "5", "--json").stdout)
    assert customer.flow_id in [f["id"] for f in listed["items"]]
    assert {f["flow"] for f in listed["items"]} == {"sign up"}
    assert customer.flow_id in mesh.command("flows", "list", "--state", "done").stdout
    shown = json.loads(mesh.command("flows", "show", customer.flow_id, "--json").stdout)
    assert (shown["id"], shown["state"]) == (customer.flow_id, "done")
    told = mesh.command("flows", "show", customer.flow_id).stdout
    assert re.search(r"^sign up +done +started ", told)
    assert re.search(r"^ *met +database ready +provisioning +\d+ ms +\S.*$", told, re.MULTILINE)


def test_mails_are_listed_and_shown_for_people_and_programs(mesh: TestMesh, customer: Customer) -> None:
    eventually(lambda: mesh.mails(customer.email, "verify"))
    (mail, *_) = json.loads(mesh.command("mail", "list", "--to", customer.email, "--json").stdout)
    assert mail.keys() == {"id", "message_id", "to", "subject", "text", "html", "headers", "received_at"}
    assert mail["subject"] in mesh.command("mail", "list", "--to", customer.email).stdout
    assert json.loads(mesh.command("mail", "show", mail["id"], "--json").stdout) == mail
    told = mesh.command("mail", "show", mail["id"][:12]).stdout
    assert customer.email in told
    assert mail["text"].splitlines()[0] in told


def test_the_demo_tells_the_sign_up_through_five_services_the_invitation_and_the_suspension(mesh: TestMesh, capsys: pytest.CaptureFixture[str]) -> None:
    Demo(mesh.mesh).run()
    told = capsys.readouterr().out
    story, _, rest = told.partition("Ann invites Bob")
    assert "sign up: done" in story
    for service in ("user", "org", "billing", "provisioning", "notification"):
        assert re.search(rf"^ +\d+ ms +\S.* {service}$", story, re.MULTILINE), service
    assert "with Ann's own credentials: hello from my own database" in story
    invited, _, suspended = rest.partition("The organization is suspended and resumed")
    assert "invite a teammate: done" in invited
    assert "with Bob's own credentials: hello from my own database" in invited
    assert "suspend an organization: done" in suspended
    assert "a login now: " in suspended
    assert "resume an organization: done" in suspended
    assert "a login again: hello from my own database" in suspended
