"""The way to the mail server: which answers are final, and that connections are kept and replaced."""

import asyncio
from collections.abc import Iterator
from email.message import EmailMessage

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

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


async def test_a_connection_that_died_meanwhile_is_replaced(server: Server) -> None:
    mailer = Mailer()
    await mailer.send(mail())
    mailer._idle[0].transport.close()  # type: ignore[union-attr]
    await asyncio.sleep(0)
    await mailer.send(mail())
    assert (server.mails, len(server.connections)) == (2, 2)
