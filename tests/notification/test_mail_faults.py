"""Mail when something fails: the server away, a refusal, a change that comes twice, the service killed."""

import signal
import threading
import uuid
from collections import Counter

import pytest

from tests.flows.people import token_of
from tests.mesh import Customer, TestMesh, eventually
from tests.notification.mailbox import VERIFY, caught_up, mail_server, no_mail_server
from tests.notification.test_messages import listed


def suspend(owner: Customer) -> None:
    assert owner.post("org", f"/orgs/{owner.org_id}/suspend", {"reason": "a fault"}).status_code == 202


@pytest.mark.processes
def test_mails_wait_for_a_server_that_is_away_and_come_once(mesh: TestMesh, customer: Customer) -> None:
    token_of(mesh, customer.email, VERIFY)
    with no_mail_server(mesh):
        suspend(customer)
        waiting = eventually(lambda: [m for m in listed(customer, "suspended") if m["attempts"]])[0]
        assert (waiting["state"], waiting["sent_at"]) == ("queued", None)
        assert "Connect" in str(waiting["error"])
        assert customer.email not in str(waiting["error"])
    sent = eventually(lambda: [m for m in listed(customer, "suspended") if m["state"] == "sent"], timeout=40)[0]
    assert (sent["id"], sent["error"]) == (waiting["id"], None)
    assert len(mesh.mails(customer.email, "Acme is suspended")) == 1


@pytest.mark.processes
def test_a_mail_that_is_refused_for_good_fails_at_once(mesh: TestMesh, customer: Customer) -> None:
    token_of(mesh, customer.email, VERIFY)
    with mail_server(mesh, lambda _: "550 5.1.1 nobody of this name") as server:
        suspend(customer)
        failed = eventually(lambda: [m for m in listed(customer, "suspended") if m["state"] == "failed"], timeout=40)[0]
    assert server.message_ids(customer.email).count(f"<{failed['id']}@mesh>") == 1
    assert "550" in str(failed["error"])
    assert mesh.rows("SELECT id FROM notification.due WHERE id = $1", uuid.UUID(str(failed["id"]))) == []


@pytest.mark.processes
def test_a_mail_that_is_refused_for_now_is_tried_again(mesh: TestMesh, customer: Customer) -> None:
    answers = iter(["451 try later"])

    token_of(mesh, customer.email, VERIFY)
    with mail_server(mesh, lambda to: next(answers, "250 OK") if to == customer.email else "250 OK") as server:
        suspend(customer)
        sent = eventually(lambda: [m for m in listed(customer, "suspended") if m["state"] == "sent"], timeout=40)[0]
        eventually(lambda: len(server.message_ids(customer.email)) > len(set(server.message_ids(customer.email))), timeout=40)
    tries = Counter(server.message_ids(customer.email))
    assert max(tries.values()) == 2
    assert sum(tries.values()) == len(tries) + 1, "one mail was tried twice, under one Message-ID"
    assert f"<{sent['id']}@mesh>" in tries


def test_a_change_that_comes_again_makes_no_second_mail(mesh: TestMesh, customer: Customer) -> None:
    """Even when the service forgot that it had reacted: the position is set back, and the changes come once more."""
    token_of(mesh, customer.email, VERIFY)
    stream = f"user:{customer.user_id}"
    eventually(lambda: caught_up(mesh, "user", stream))
    mesh.rows("UPDATE notification.positions SET seq = 0 WHERE source = 'user' AND stream = $1", stream)
    mesh.rows('SELECT "user".send_again($1, 1, (SELECT seq FROM "user".streams WHERE stream = $1))', stream)
    eventually(lambda: caught_up(mesh, "user", stream), what="the changes to be applied again")
    assert len(mesh.rows("SELECT id FROM notification.messages WHERE user_id = $1 AND org_id IS NULL", uuid.UUID(customer.user_id))) == 1
    assert len(mesh.mails(customer.email, VERIFY)) == 1


@pytest.mark.processes
def test_a_kill_under_way_repeats_at_most_the_mails_that_were_leaving(mesh: TestMesh) -> None:
    """The service dies while the server has taken some mails and not said yes to them."""
    killed = threading.Event()

    def answer(_: str) -> str:
        if len(server.taken) >= 3 and not killed.is_set():
            killed.set()
            mesh.mesh.kill("notification", signal.SIGKILL)
        return "250 OK"

    with mail_server(mesh, answer) as server:
        people = [mesh.sign_up(organization=None) for _ in range(8)]
        eventually(lambda: all(server.message_ids(p.email) for p in people), timeout=60, what="a mail to everyone")
        assert killed.is_set()
        ids = [p.user_id for p in people]
        state = "SELECT count(*) AS n FROM notification.messages WHERE user_id = ANY($1::text[]::uuid[]) AND state = 'sent'"
        eventually(lambda: mesh.rows(state, ids)[0]["n"] == len(people), timeout=60, what="every message to be marked sent")
    for person in people:
        assert len(set(server.message_ids(person.email))) == 1, "one message each"
    repeats = Counter(Counter(message_id for _, message_id in server.taken).values())
    assert max(repeats) <= 2, "a repeat is allowed once, after the crash"
