"""The mail inbox takes every mail and forgets none."""

import smtplib
from email.message import EmailMessage
from pathlib import Path

import requests

from deploy.plan import HOST
from tests.deploy.doors import free_ports, serving


def variables(folder: Path, ports: dict[str, int]) -> dict[str, str]:
    return {"INBOX_DIR": str(folder), "INBOX_HOST": HOST, "INBOX_SMTP_PORT": str(ports["smtp"]), "INBOX_HTTP_PORT": str(ports["mail"])}


def send(port: int, to: str, subject: str) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"], mail["Message-ID"] = "mesh@example.com", to, subject, f"<{subject}@example.com>"
    mail.set_content("Grüße: http://example.com/?token=abc")
    mail.add_alternative("<p>Grüße</p>", subtype="html")
    with smtplib.SMTP(HOST, port) as client:
        client.send_message(mail)


def test_mails_are_listed_newest_first_with_what_was_sent(tmp_path: Path) -> None:
    ports = free_ports()
    with serving("deploy.inbox", variables(tmp_path, ports), ports["mail"]) as url:
        send(ports["smtp"], "ada@example.com", "one")
        send(ports["smtp"], "bob@example.com", "two")
        first, second = requests.get(f"{url}/messages", timeout=5).json()
        assert (first["subject"], second["subject"]) == ("two", "one")
        assert set(first) == {"id", "message_id", "to", "subject", "text", "html", "headers", "received_at"}
        assert first["to"] == ["bob@example.com"]
        assert first["message_id"] == "<two@example.com>"
        assert "Grüße: http://example.com/?token=abc" in first["text"]
        assert "<p>Grüße</p>" in first["html"]
        only = requests.get(f"{url}/messages", params={"to": "Ada@Example.com"}, timeout=5).json()
        assert [mail["subject"] for mail in only] == ["one"]


def test_a_mail_that_was_taken_survives_a_kill(tmp_path: Path) -> None:
    ports = free_ports()
    with serving("deploy.inbox", variables(tmp_path, ports), ports["mail"]):
        send(ports["smtp"], "ada@example.com", "kept")
    with (tmp_path / "messages.jsonl").open("a") as file:
        file.write('{"cut in the middle')
    with serving("deploy.inbox", variables(tmp_path, ports), ports["mail"]) as url:
        send(ports["smtp"], "ada@example.com", "later")
        assert [mail["subject"] for mail in requests.get(f"{url}/messages", timeout=5).json()] == ["later", "kept"]
