"""The pages behind the links in mails."""

import html
import json
import re
import secrets
import shlex

import httpx
import pytest

from tests.flows.people import introduce, token_of, verify
from tests.mesh import HTTP, Customer, TestMesh, eventually
from tests.notification.mailbox import RESET, VERIFY

_LINK = re.compile(r"http://\S+")


def page(mesh: TestMesh, to: str, about: str) -> httpx.Response:
    """What the link in the newest mail about something leads to."""
    mail = eventually(lambda: mesh.mails(to, about)[0])
    answer = HTTP.get(_LINK.findall(mail["text"])[0])
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    return answer


def as_told(answer: httpx.Response, fill_in: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """Sends what the page says, as a shell would read it, with the blank filled in."""
    command = re.search(r"<pre>(.*)</pre>", answer.text)
    assert command, answer.text
    words = shlex.split(html.unescape(command[1]).replace("…", fill_in))
    assert words[:3] == ["curl", "-X", "POST"]
    name, _, value = words[words.index("-H") + 1].partition(": ")
    body = words[words.index("-d") + 1] if "-d" in words else None
    return HTTP.post(words[3], content=body, headers={name: value, **(headers or {})})


def test_the_page_behind_the_link_says_how_to_verify_the_address(mesh: TestMesh, person: Customer) -> None:
    answer = page(mesh, person.email, VERIFY)
    assert person.get("user", "/me").json()["verified_at"] is None, "looking at it does nothing"
    assert as_told(answer, "").status_code == 204
    assert person.get("user", "/me").json()["verified_at"] is not None


def test_the_page_behind_the_link_says_how_to_set_a_new_password(mesh: TestMesh, person: Customer) -> None:
    assert mesh.anyone.post("user", "/password-resets", {"email": person.email}).status_code == 202
    assert as_told(page(mesh, person.email, RESET), "another long river").status_code == 204
    assert mesh.sign_in(person.email, "another long river")


def test_the_page_behind_the_link_says_how_to_accept_an_invitation(mesh: TestMesh, customer: Customer) -> None:
    bob = mesh.sign_up(organization=None)
    for person in (customer, bob):
        verify(mesh, person)
    introduce(customer, bob)
    assert customer.post("org", f"/orgs/{customer.org_id}/invitations", {"email": bob.email}).status_code == 202
    introduce(customer, bob)
    answer = page(mesh, bob.email, "invites you")
    accepted = as_told(answer, bob.headers["Authorization"].removeprefix("Bearer "), {"Mesh-Position": bob.headers["Mesh-Position"]})
    assert accepted.status_code == 202, accepted.text


@pytest.mark.parametrize("token", ["", "<script>", "a'b", "a%0Ab"])
def test_what_is_no_token_is_not_shown(mesh: TestMesh, token: str) -> None:
    answer = mesh.anyone.get("console", f"/verify?token={token}")
    assert answer.status_code == 422
    assert not token or token not in json.dumps(answer.json())


def test_a_token_in_an_address_is_neither_logged_nor_traced(mesh: TestMesh, person: Customer) -> None:
    token, trace_id = token_of(mesh, person.email, VERIFY), secrets.token_hex(16)
    traced = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
    assert mesh.anyone.get("console", f"/verify?token={token}", headers=traced).status_code == 200
    assert mesh.anyone.get("console", "/flows", headers=traced).status_code == 401
    eventually(lambda: mesh.traces.spans.get(trace_id), what="the span of the second request")
    assert [name for _, name in mesh.traces.spans[trace_id] if "verify" in name] == []
    assert token not in mesh.log("console")
