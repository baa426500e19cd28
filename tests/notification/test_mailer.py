"""The way to the mail server: which answers are final, and that connections are kept and replaced."""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from services.notification.mailer import Mailer, NotSent, RefusedForGood
from shared.settings import settings

ADDRESS = "someone.private@example.com"


class Server:
    """Answers as it is told; counts connections and mails."""

    def __init__(self) -> None:
        self.rcpt, self.data = "250 OK", "250 OK"
        self.connections: set[object] = set()
        self.mails = 0

    async def handle_RCPT(self, _server: SMTP, session: Session, envelope: Envelope, address: str, _options: list[str]) -> str:  # noqa: N802 - aiosmtpd's name
        self.connections.add(session.peer)
        if self.rcpt.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.rcpt

    async def handle_DATA(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        self.mails += 1
        return self.data


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, unused_port: int) -> Iterator[Server]:
    told = Server()
    controller = Controller(told, hostname="127.0.0.1", port=unused_port)
    controller.start()
    yield told
    controller.stop()


@pytest.fixture
def unused_port(monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int) -> Iterator[int]:
    monkeypatch.setenv("SMTP_HOST", "127.0.0.1")
    monkeypatch.setenv("SMTP_PORT", str(unused_tcp_port))
    settings.cache_clear()
    yield unused_tcp_port
    settings.cache_clear()


def mail(to: str = ADDRESS) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "mesh@example.com", to, "Hello"
    message.set_content("Hello")
    return message


async def test_mails_share_a_connection(server: Server) -> None:
    mailer = Mailer()
    for _ in range(3):
        await mailer.send(mail())
    assert (server.mails, len(server.connections)) == (3, 1)


async def test_mails_at_once_do_not_wait_for_each_other(server: Server) -> None:
    mailer = Mailer()
    await asyncio.gather(*(mailer.send(mail()) for _ in range(5)))
    assert server.mails == 5


@pytest.mark.parametrize(("answer", "error"), [("550 5.1.1 no such user", RefusedForGood), ("450 4.2.1 later", NotSent)])
@pytest.mark.parametrize("at", ["rcpt", "data"])
async def test_a_permanent_answer_is_final_and_another_is_not(server: Server, at: str, answer: str, error: type[Exception]) -> None:
    mailer = Mailer()
    setattr(server, at, answer)
    with pytest.raises(error) as raised:
        await mailer.send(mail())
    assert answer[:3] in str(raised.value)
    assert ADDRESS not in str(raised.value)
    setattr(server, at, "250 OK")
    await mailer.send(mail())


async def test_an_address_beyond_ascii_is_mailed_where_the_server_can(server: Server) -> None:
    await Mailer().send(mail("jürgen@example.com"))
    assert server.mails == 1


async def test_a_server_that_is_away_is_no_refusal(unused_port: int) -> None:
    with pytest.raises(NotSent):
        await Mailer().send(mail())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the mail server, with its key; it has signed it itself."""
    key, name, now = Ed25519PrivateKey.generate(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, None)
    )  # fmt: skip
    file = tmp_path_factory.mktemp("certificate") / "server.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM))
    return file


class Safe(Server):
    """Notes of each mail whether it came through TLS, and takes any password."""

    def __init__(self) -> None:
        super().__init__()
        self.through_tls: list[bool] = []
        self.logins = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        self.through_tls.append(server.transport.get_extra_info("sslcontext") is not None)
        return await super().handle_DATA(server, session, envelope)

    def log_in(self, *_: object) -> AuthResult:
        self.logins += 1
        return AuthResult(success=True)


@contextmanager
def offering(offer: str, certificate: Path, port: int) -> Iterator[Safe]:
    """A mail server that offers STARTTLS, speaks TLS from the first byte, or neither. It lets anybody log in, with or without TLS."""
    told, context = Safe(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    about = {"starttls": {"tls_context": context}, "tls": {"ssl_context": context}, "none": {}}[offer]
    controller = Controller(told, hostname="127.0.0.1", port=port, authenticator=told.log_in, auth_require_tls=False, **about)
    controller.start()
    try:
        yield told
    finally:
        controller.stop()


@pytest.mark.parametrize(
    ("security", "user", "offer", "through_tls"),
    [
        ("", "", "none", False), ("", "", "starttls", True), ("", "me", "starttls", True),
        ("none", "me", "none", False), ("none", "", "starttls", False), ("starttls", "", "starttls", True), ("tls", "me", "tls", True), ("tls", "", "tls", True),
    ],
)  # fmt: skip
async def test_mails_go_as_safely_as_they_are_told_to(
    monkeypatch: pytest.MonkeyPatch, unused_port: int, certificate: Path, security: str, user: str, offer: str, *, through_tls: bool
) -> None:
    for name, value in {"SMTP_SECURITY": security, "SMTP_USERNAME": user, "SMTP_PASSWORD": user, "SSL_CERT_FILE": str(certificate)}.items():
        monkeypatch.setenv(name, value)
    with offering(offer, certificate, unused_port) as server:
        await Mailer().send(mail())
    assert (server.through_tls, server.logins) == ([through_tls], int(bool(user)))


@pytest.mark.parametrize(("security", "user", "said"), [("", "me", "STARTTLS"), ("starttls", "", "STARTTLS"), ("tls", "", "Connect")])
async def test_a_server_that_does_not_offer_tls_is_told_neither_password_nor_mail(
    monkeypatch: pytest.MonkeyPatch, unused_port: int, certificate: Path, security: str, user: str, said: str
) -> None:
    """Nor is it a refusal for good: whoever takes the offer out of the server's answer would undo our mails."""
    for name, value in {"SMTP_SECURITY": security, "SMTP_USERNAME": user, "SMTP_PASSWORD": user}.items():
        monkeypatch.setenv(name, value)
    with offering("none", certificate, unused_port) as server, pytest.raises(NotSent, match=said):
        await Mailer().send(mail())
    assert (server.mails, server.logins) == (0, 0)


async def test_a_certificate_that_nobody_trusts_is_no_mail_server(monkeypatch: pytest.MonkeyPatch, unused_port: int, certificate: Path) -> None:
    monkeypatch.setenv("SMTP_SECURITY", "starttls")
    with offering("starttls", certificate, unused_port) as server, pytest.raises(NotSent):
        await Mailer().send(mail())
    assert server.mails == 0


async def test_a_connection_that_died_meanwhile_is_replaced(server: Server) -> None:
    mailer = Mailer()
    await mailer.send(mail())
    mailer._idle[0].transport.close()  # type: ignore[union-attr]
    await asyncio.sleep(0)
    await mailer.send(mail())
    assert (server.mails, len(server.connections)) == (2, 2)
