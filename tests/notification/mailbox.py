"""How tests stand in for the mail server, and know how far the notification service has come."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from deploy.plan import is_free
from tests.flows.people import introduce
from tests.mesh import Customer, TestMesh, eventually

VERIFY, RESET, TAKEN = "Verify your address", "Set a new password", "You already have an account"


def invite(mesh: TestMesh, owner: Customer, person: Customer, role: str = "member") -> None:
    """Makes the person a member; both have followed the link of their mail. An invitation that is accepted is not mailed any more."""
    accept(owner, person, invited(owner, person, role))


def invited(owner: Customer, person: Customer, role: str = "member") -> str:
    """The id of an invitation."""
    made = owner.post("org", f"/orgs/{owner.org_id}/invitations", {"email": person.email, "role": role})
    assert made.status_code == 202, made.text
    return str(made.json()["id"])


def accept(owner: Customer, person: Customer, invitation: str) -> None:
    introduce(owner, person)
    accepted = person.post("org", f"/invitations/{invitation}/accept")
    assert accepted.status_code == 202, accepted.text
    introduce(owner, person)


def caught_up(mesh: TestMesh, source: str, stream: str) -> bool:
    """Whether notification has reacted to all of another service's stream."""
    applied = "SELECT seq FROM notification.positions WHERE reader = 'reactions' AND source = $1 AND stream = $2"
    head = mesh.rows(f'SELECT seq FROM "{source}".streams WHERE stream = $1', stream)
    return [r["seq"] for r in mesh.rows(applied, source, stream)] == [r["seq"] for r in head]


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
        port = int(mesh.status["mail"]["smtp"].rpartition(":")[2])
        eventually(lambda: mesh.mesh.pid("mail") is None and is_free(port), what="its port to be free: its threads end after it")
        yield
    finally:
        mesh.mesh.release("mail")
        eventually(lambda: mesh.mesh.status()["mail"]["state"] == "up", timeout=60, what="the mail server to be back")


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
