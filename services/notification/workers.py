"""The notification service's work outside Postgres: mails, and the keys of their links."""

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_exponential

from services.notification import links, messages
from services.notification.mailer import Mailer, NotSent, RefusedForGood
from shared.failpoints import failpoint
from shared.tx import Database, DatabaseAway
from shared.workers import GiveUp, Work, housekeeping, worker

_mailer = Mailer()


@worker(messages.MAIL)
async def send_the_mail(work: Work) -> None:
    """Sends one message. Killed between the server's yes and our mark it is sent once more, under the same Message-ID."""
    try:
        async with work.transaction() as tx:
            mail = await messages.write_mail(tx, work.id)
        if mail is None:
            return
        await _mailer.send(mail)
        failpoint("mail")
    except (RefusedForGood, messages.TooLate) as error:
        await _failed(work, error, last=True)
        raise GiveUp(str(error)) from None
    except NotSent as error:
        await _failed(work, error, last=work.overdue)
        if work.overdue:
            raise GiveUp(str(error)) from None
        raise
    await _sent(work)


@retry(retry=retry_if_exception_type(DatabaseAway), wait=wait_exponential(multiplier=0.05, max=1), stop=stop_after_delay(5), reraise=True)
async def _sent(work: Work) -> None:
    """Tried for a while when the database is away: what is not marked is sent again."""
    async with work.transaction() as tx:
        await messages.mark_sent(tx, work.id, work.attempt)


async def _failed(work: Work, error: Exception, *, last: bool) -> None:
    async with work.transaction() as tx:
        await messages.mark_attempt(tx, work.id, work.attempt, str(error), last=last)


@housekeeping(every_seconds=3600)
async def keep_link_keys(database: Database) -> None:
    """Makes the first link key at start, and a new one every ninety days."""
    async with database.transaction() as tx:
        await links.rotate_key(tx)
