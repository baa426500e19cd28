"""How tests read mails and follow their links, and how they stand in for the mail server."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.mesh import Customer, Door, TestMesh, eventually

VERIFY, RESET, TAKEN = "Verify your address", "Set a new password", "You already have an account"


def mailed_token(mesh: TestMesh, to: str, subject: str) -> str:
    """The token in the newest mail of this kind, once it is there."""
    mail = eventually(lambda: mesh.mails(to, subject), what=f"the mail {subject!r} to {to}")[0]
    link = re.search(r"http\S+\?token=(\S+)", mail["text"])
    assert link, mail["text"]
    return link.group(1)


def verify(mesh: TestMesh, person: Customer) -> None:
    """Follows the link of the mail, as the person does."""
    token = mailed_token(mesh, person.email, VERIFY)
    answer = person.post("user", "/users/verify", {"token": token})
    assert answer.status_code == 204, answer.text


def invite(mesh: TestMesh, owner: Customer, person: Customer, role: str = "member") -> None:
    """Makes the person a member; both have followed the link of their mail."""
    path = f"/orgs/{owner.org_id}/invitations"
    invitation = eventually(lambda: _made(owner, path, {"email": person.email, "role": role}))
    has_seen_what(person, owner)
    accepted = person.post("org", f"/invitations/{invitation}/accept")
    assert accepted.status_code == 202, accepted.text
    has_seen_what(owner, person)


def has_seen_what(one: Door, other: Door) -> None:
    """One's next request waits for everything that the other has seen, too."""
    seen = [door.headers["Mesh-Position"] for door in (one, other) if "Mesh-Position" in door.headers]
    one.headers["Mesh-Position"] = ", ".join(seen)


def _made(owner: Door, path: str, body: dict[str, str]) -> str:
    answer = owner.post("org", path, body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


class MailServer:
    """A mail server of our own, in the place of the mesh's: it answers to a mail what ``answer`` says of its recipient and keeps what it accepts."""

    def __init__(self, answer: Callable[[str], str]) -> None:
        self.answer = answer
        self.taken: list[tuple[str, str]] = []
        """(recipient, Message-ID) of each mail that it was given to the end."""
        self._lock = threading.Lock()

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - the name aiosmtpd calls
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        message_id = message_from_bytes(content)["Message-ID"]
        with self._lock:
            self.taken.extend((str(to), message_id) for to in envelope.rcpt_tos)
        return self.answer(str(envelope.rcpt_tos[0]))

    def message_ids(self, to: str) -> list[str]:
        return [message_id for recipient, message_id in self.taken if recipient == to]


@contextmanager
def no_mail_server(mesh: TestMesh) -> Iterator[None]:
    """The mail server is away inside, and back after."""
    mesh.mesh.hold("mail")
    try:
        mesh.mesh.kill("mail")
        eventually(lambda: mesh.mesh.pid("mail") is None)
        yield
    finally:
        mesh.mesh.release("mail")
        mesh.mesh.wait_healthy()


@contextmanager
def mail_server(mesh: TestMesh, answer: Callable[[str], str]) -> Iterator[MailServer]:
    """Ours inside, the mesh's after."""
    host, port = mesh.status["mail"]["smtp"].split(":")
    with no_mail_server(mesh):
        ours = MailServer(answer)
        controller = Controller(ours, hostname=host, port=int(port))
        controller.start()
        try:
            yield ours
        finally:
            controller.stop()
