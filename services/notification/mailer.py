"""The way to the mail server: a few connections, kept open between mails."""

import asyncio
from email.message import EmailMessage

import aiosmtplib

from shared.settings import settings

_PATIENCE = 5.0
_WHOLE = 20.0
"""Less than a worker's lease, so that the outcome is written down while the work is still ours."""


class NotSent(Exception):
    """The mail server did not take the mail now; it may take it later. The message names nobody."""


class RefusedForGood(Exception):
    """The mail server says that it will never take this mail. The message names nobody."""


class Mailer:
    """Sends mails over connections that stay open. One that has died meanwhile is noticed before it is used."""

    def __init__(self) -> None:
        self._idle: list[aiosmtplib.SMTP] = []

    async def send(self, mail: EmailMessage) -> None:
        """Returns when the server has the mail. Raises :class:`NotSent`, :class:`RefusedForGood`."""
        try:
            async with asyncio.timeout(_WHOLE):
                await self._send(mail)
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _judged(error.recipients[0]) from None
        except aiosmtplib.SMTPDataError as error:
            raise _judged(error) from None
        except aiosmtplib.SMTPNotSupported:
            raise RefusedForGood("the mail server does not support such an address") from None
        except aiosmtplib.SMTPResponseException as error:
            raise NotSent(_named(error)) from None
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise NotSent(_why(error)) from None

    async def _send(self, mail: EmailMessage) -> None:
        connection = await self._connection()
        try:
            await connection.send_message(mail)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)

    async def _connection(self) -> aiosmtplib.SMTP:
        while self._idle:
            connection = self._idle.pop()
            try:
                await connection.noop()
            except (aiosmtplib.SMTPException, OSError):
                connection.close()
            else:
                return connection
        fresh = _client()
        await fresh.connect()
        return fresh


def _client() -> aiosmtplib.SMTP:
    """With a password to lose, TLS is not left to the server's offer: anybody between us can take that out."""
    s = settings()
    user, password = s.smtp_username or None, s.smtp_password.get_secret_value() or None
    security = s.smtp_security or ("starttls" if user else "")
    start_tls = None if security == "" else security == "starttls"
    return aiosmtplib.SMTP(
        hostname=s.smtp_host, port=s.smtp_port, username=user, password=password, timeout=_PATIENCE, use_tls=security == "tls", start_tls=start_tls
    )


def _judged(error: aiosmtplib.SMTPResponseException) -> NotSent | RefusedForGood:
    """A 5xx answer to this recipient or this mail is final; one to our greeting, login or sender is for us to mend."""
    return RefusedForGood(_named(error)) if error.code >= 500 else NotSent(_named(error))


def _why(error: Exception) -> str:
    """The library's own words where the kind of error says nothing: the server has no STARTTLS, or no way to log in."""
    return str(error) if type(error) is aiosmtplib.SMTPException else type(error).__name__


def _named(error: aiosmtplib.SMTPResponseException) -> str:
    return f"the mail server answered {error.code} ({type(error).__name__})"
