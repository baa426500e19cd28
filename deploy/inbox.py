"""The mail inbox of a local mesh: takes every mail over SMTP and shows them all over HTTP.

``GET /messages[?to=address][&limit=n]`` answers a JSON list, newest first; a mail is on disk before its sender hears 250.
Variables: ``INBOX_DIR``, ``INBOX_HOST``, ``INBOX_SMTP_PORT``, ``INBOX_HTTP_PORT``.
"""

import asyncio
import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiohttp import web
from aiosmtpd.smtp import SMTP, Envelope, Session

_LARGEST_MAIL = 10 * 1024 * 1024  # bytes

Message = dict[str, Any]


@dataclass
class Mailbox:
    """All mails ever received, in memory and in one file with a mail a line."""

    file: Path
    messages: list[Message] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path) -> "Mailbox":
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "messages.jsonl"
        lines = file.read_text(encoding="utf-8").split("\n") if file.exists() else []
        whole = lines[:-1]  # what follows the last line end was cut by a crash: its sender never heard 250
        file.write_text("".join(f"{line}\n" for line in whole), encoding="utf-8")
        return cls(file, [json.loads(line) for line in whole])

    def add(self, message: Message) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(message) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.messages.append(message)

    def newest(self, to: str | None, limit: int | None) -> list[Message]:
        wanted = to.lower() if to else None
        found = [m for m in reversed(self.messages) if wanted is None or wanted in (address.lower() for address in m["to"])]
        return found[:limit]

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - the name aiosmtpd calls
        content = envelope.content if isinstance(envelope.content, bytes) else (envelope.content or "").encode()
        await asyncio.to_thread(self.add, read(content, [str(address) for address in envelope.rcpt_tos]))
        return "250 OK"


def read(content: bytes, recipients: list[str]) -> Message:
    """A mail as the inbox shows it. ``to`` are the addresses it was really delivered to."""
    mail = message_from_bytes(content, _class=EmailMessage, policy=policy.default)
    return {
        "id": str(uuid4()),
        "message_id": mail.get("Message-ID", ""),
        "to": recipients,
        "subject": mail.get("Subject", ""),
        "text": _body(mail, "plain"),
        "html": _body(mail, "html"),
        "headers": {name: str(value) for name, value in mail.items()},
        "received_at": datetime.now(UTC).isoformat(),
    }


def _body(mail: EmailMessage, kind: str) -> str | None:
    part = mail.get_body((kind,))
    return part.get_content() if part else None


def application(mailbox: Mailbox) -> web.Application:
    async def messages(request: web.Request) -> web.Response:
        limit = request.query.get("limit", "")
        if limit and not limit.isdigit():
            raise web.HTTPUnprocessableEntity(text="limit is a number of messages")
        return web.json_response(mailbox.newest(request.query.get("to"), int(limit) if limit else None))

    async def ready(_: web.Request) -> web.Response:
        return web.json_response({"messages": len(mailbox.messages)})

    app = web.Application()
    app.router.add_get("/messages", messages)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/healthz", ready)
    return app


async def serve(folder: Path, host: str, smtp_port: int, http_port: int) -> None:
    """Until it is cancelled."""
    mailbox = Mailbox.open(folder)
    runner = web.AppRunner(application(mailbox), access_log=None)
    await runner.setup()
    loop = asyncio.get_running_loop()
    smtp = await loop.create_server(lambda: SMTP(mailbox, hostname="mesh", enable_SMTPUTF8=True, data_size_limit=_LARGEST_MAIL, loop=loop), host, smtp_port)
    await web.TCPSite(runner, host, http_port).start()
    try:
        await smtp.serve_forever()
    finally:
        await runner.cleanup()


def main() -> None:
    env = os.environ
    asyncio.run(serve(Path(env["INBOX_DIR"]), env["INBOX_HOST"], int(env["INBOX_SMTP_PORT"]), int(env["INBOX_HTTP_PORT"])))


if __name__ == "__main__":
    main()
