"""Carries out what operators ordered, apart from the changes that are being applied."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple
from uuid import UUID

from shared import orders
from shared.healing import Pair, Retrier
from shared.log import log
from shared.orders import ORDERS, Order, Told
from shared.parking import Failure
from shared.tx import DatabaseAway
from shared.workers import jobs_of

NOTHING = "nothing waits here under this name"
NO_STREAM = "there is no such stream here"
NOT_SENT = "nothing sent again: none of these numbers is kept, or all were sent within the last two seconds"
TOO_LATE = "came more than a day after it was given: not carried out; give it again if it is still wanted"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


class Work(NamedTuple):
    """Work of ``due`` that a worker or timer is to do, as flows call that one."""

    worker: str
    kind: str
    target: str
    id: UUID
    flow_id: UUID | None

    @property
    def subject(self) -> str:
        return f"{self.kind}/{self.target}/{self.id}"


class Operating:
    """The orders that one service took."""

    def __init__(self, retrier: Retrier) -> None:
        self.retrier = retrier
        self.database = retrier.database
        self._acts: dict[str, Callable[[Order], Awaitable[None]]] = {
            "retry": self._retry, "skip": self._skip, "cancel": self._cancel, "resend": self._resend, "restate": self._restate,
        }  # fmt: skip

    async def carry_out(self) -> None:
        """Everything that is not done yet, in the order it was given. One that fails tells so, and is not tried again.

        Killed in between it is carried out again from its beginning, which finds nothing left of what it did.
        """
        async with self.database.transaction(readonly=True) as tx:
            waiting = await orders.to_do(tx)
        for order in waiting:
            try:
                await (self._acts[order.act](order) if not order.late else self._answer(order, TOO_LATE))
            except DatabaseAway:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the operator is told
                log.error("an order could not be carried out", extra={"order": str(order.id), "act": order.act}, exc_info=error)
                await self._answer(order, f"failed: {Failure(error).text}")
            async with self.database.transaction() as tx:
                await orders.done(tx, order)

    async def _answer(self, order: Order, outcome: str) -> None:
        """Tells that nothing was done, and why."""
        async with self.database.transaction(ORDERS) as tx:
            await orders.tell(tx, order, Told(", ".join(order.actors), order.subject or "", outcome, did=False))

    # Parked reactions, failing work

    async def _pairs(self, order: Order) -> list[Pair]:
        async with self.database.transaction(readonly=True) as tx:
            rows = await tx.records(
                "SELECT reaction, source, stream, target FROM parked WHERE reaction = ANY($1) AND ($2::text IS NULL OR source || '/' || stream = $2) ORDER BY since",
                order.actors, order.subject,
            )  # fmt: skip
        return [Pair(*r) for r in rows]

    async def _failing(self, order: Order) -> list[Work]:
        async with self.database.transaction(readonly=True) as tx:
            rows = await tx.records(
                "SELECT worker, kind, target, id, flow_id FROM failing_work "
                "WHERE worker = ANY($1) AND ($2::text IS NULL OR kind || '/' || target || '/' || id = $2) ORDER BY since",
                order.actors, order.subject,
            )  # fmt: skip
        return [Work(*r) for r in rows]

    async def _retry(self, order: Order) -> None:
        pairs, works = await self._pairs(order), await self._failing(order)
        for pair in pairs:
            await self._retry_pair(order, pair)
        for work in works:
            await self._retry_work(order, work)
        if not pairs and not works:
            await self._answer(order, NOTHING)

    async def _retry_pair(self, order: Order, pair: Pair) -> None:
        """One attempt now, and a new day of attempts when it fails again."""
        async with self.database.transaction() as tx:
            calls = await self.retrier.waiting(tx, pair)
            if calls is None:
                return
            flow_id = calls[0].change.context.flow_id if calls else None
            orders.act_for(tx, order, pair.target, flow_id)
            await tx.run("UPDATE parked SET state = 'retrying', since = now() WHERE reaction = $1 AND source = $2 AND stream = $3", *pair.key)
            failure = await self.retrier.attempt(tx, pair, calls)
            outcome = f"tried, and failed again: {failure.text}" if failure else "tried, and done"
            await orders.tell(tx, order, Told(pair.reaction, pair.subject, outcome, target=pair.target, flow_id=flow_id))

    async def _retry_work(self, order: Order, work: Work) -> None:
        """Ends its pause, unless it is being tried right now."""
        async with self.database.transaction(work.target) as tx:
            paused = await tx.run(
                "UPDATE due d SET leased_until = '-infinity', since = now() FROM failing_work f "
                "WHERE (d.kind, d.target, d.id) = ($1, $2, $3) AND (f.kind, f.target, f.id) = ($1, $2, $3) AND d.attempt = f.attempt",
                work.kind, work.target, work.id,
            )  # fmt: skip
            tx.scheduled.add(work.kind)
            outcome = "is tried now" if paused else "is being tried already"
            await orders.tell(tx, order, Told(work.worker, work.subject, outcome, bool(paused), work.target, work.flow_id))

    async def _skip(self, order: Order) -> None:
        if pairs := await self._pairs(order):
            await self._skip_change(order, pairs[0])
        elif works := await self._failing(order):
            await self._take_back(order, works[0])
        else:
            await self._answer(order, NOTHING)

    async def _skip_change(self, order: Order, pair: Pair) -> None:
        """Leaves out the change that the order names, and applies what waits behind it, in order."""
        async with self.database.transaction() as tx:
            calls = await self.retrier.waiting(tx, pair)
            if calls is None:
                return
            if not calls or calls[0].change.name != order.change:
                now = "it fails on another change by now; nothing was skipped"
                await orders.tell(tx, order, Told(pair.reaction, pair.subject, now, did=False, target=pair.target))
                return
            failure = await self.retrier.attempt(tx, pair, calls[1:])
            outcome = f"skipped; a later change fails: {failure.text}" if failure else f"skipped; {len(calls) - 1} later changes applied"
            await orders.tell(tx, order, Told(pair.reaction, pair.subject, outcome, target=pair.target, flow_id=calls[0].change.context.flow_id))

    async def _take_back(self, order: Order, work: Work) -> None:
        async with self.database.transaction(work.target) as tx:
            await tx.unschedule(work.kind, work.id)
            outcome = "taken back; its row stays as it is"
            await orders.tell(tx, order, Told(work.worker, work.subject, outcome, target=work.target, flow_id=work.flow_id))

    # Flows

    async def _cancel(self, order: Order) -> None:
        """Since the order was taken no reaction runs for the flow; what waited already is left out, and work for a step to come taken back."""
        async with self.database.transaction(readonly=True) as tx:
            pairs = await tx.records(
                "SELECT DISTINCT p.reaction, p.source, p.stream, p.target FROM parked p JOIN parked_changes c USING (reaction, source, stream) "
                "WHERE c.record::json ->> 'flow_id' = $1::text",
                str(order.flow_id),
            )
            kinds = {job.kind: job.name for job in jobs_of(self.database.service) if job.name in order.actors}
            works = await tx.records("SELECT kind, target, id FROM due WHERE kind = ANY($1) AND context ->> 'flow_id' = $2", list(kinds), str(order.flow_id))
        for pair in pairs:
            await self._leave_out(order, Pair(*pair))
        for work in works:
            await self._take_back(order, Work(kinds[work["kind"]], work["kind"], work["target"], work["id"], order.flow_id))

    async def _leave_out(self, order: Order, pair: Pair) -> None:
        async with self.database.transaction() as tx:
            calls = await self.retrier.waiting(tx, pair)
            if calls is not None:
                await self.retrier.attempt(tx, pair, calls)
                await orders.tell(tx, order, Told(pair.reaction, pair.subject, "what the flow had waiting is left out", target=pair.target))

    # Streams

    async def _resend(self, order: Order) -> None:
        async with self.database.transaction(ORDERS) as tx:
            if await orders.done(tx, order):
                known = await tx.value("SELECT EXISTS (SELECT FROM streams WHERE stream = $1)", order.subject)
                sent = await tx.value("SELECT send_again($1, $2, $3)", order.subject, order.from_seq or 1, order.to_seq or 2**62)
                outcome = (f"{_count(sent, 'change')} sent again" if sent else NOT_SENT) if known else NO_STREAM
                await orders.tell(tx, order, Told(self.database.service, order.subject or "", outcome, sent > 0))

    async def _restate(self, order: Order) -> None:
        async with self.database.transaction(ORDERS) as tx:
            if await orders.done(tx, order):
                streams = await tx.run(
                    "INSERT INTO restatements (stream, ordered) SELECT stream, true FROM streams WHERE $1::text IS NULL OR stream = $1 "
                    "ON CONFLICT (stream) DO UPDATE SET ordered = true",
                    order.subject,
                )
                outcome = f"{_count(streams, 'stream')} being restated" if streams else NO_STREAM
                await orders.tell(tx, order, Told(self.database.service, order.subject or "", outcome, streams > 0))
