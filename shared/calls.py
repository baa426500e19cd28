"""Runs reactions for changes, in the transaction of a lane: one by one or as a set, with care where one is suspected to fail."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from shared import parking
from shared.changes import Change, stream_id
from shared.log import log, working_on
from shared.metrics import metrics
from shared.positions import Key, Progress
from shared.reactions import Reaction
from shared.trace import span, trace_id
from shared.tx import DatabaseAway, Tx

Suspect = tuple[str, str, str]
"""A reaction on a stream of a source."""
NOTHING_HELD_BACK = parking.HeldBack(frozenset(), frozenset())


@dataclass(frozen=True)
class Call:
    """One reaction to be run for one change, with the stream it writes. ``failure`` when that could not even be told."""

    reaction: Reaction
    change: Change
    target: str
    failure: parking.Failure | None = None


class Failed(Exception):
    """A reaction failed without a savepoint around it: nothing of its lane was done."""

    def __init__(self, *calls: Call) -> None:
        self.suspects = {_suspect(call) for call in calls}


def _suspect(call: Call) -> Suspect:
    return call.reaction.name, call.change.source, call.change.stream


class Runner:
    """Runs the calls of one lane in one transaction."""

    def __init__(self, tx: Tx, held_back: parking.HeldBack, suspects: set[Suspect] | None) -> None:
        self.tx = tx
        self.held_back = held_back
        self.suspects = suspects
        self.parked: set[tuple[str, Key]] = set()
        self._set: list[Call] = []

    async def run(self, progress: Progress, call: Call) -> None:
        """Runs a call, parks it, or leaves it out. One of a reaction to many changes waits for those that follow it at once."""
        if self._set and not _one_set(self._set[-1], call):
            await self.run_set()
        name = call.reaction.name
        if call.change.context.flow_id in self.held_back.flows:
            return
        if name in progress.parked or (name, progress.key) in self.parked:
            await parking.queue(self._as_kit(call), name, call.change)
        elif name in self.held_back.reactions:
            await self._park(call, parking.Failure(RuntimeError("held by the fuse of this reaction")))
        elif call.failure:
            await self._park(call, call.failure)
        elif self.suspects is None or _suspect(call) in self.suspects:
            await self._run_carefully(call)
        elif call.reaction.many:
            self._set.append(call)
        else:
            await self._invoke(call)

    async def run_set(self) -> None:
        """Runs what was collected of a reaction to many changes."""
        if self._set:
            calls, self._set = self._set, []
            await self._invoke(*calls)

    async def _invoke(self, *calls: Call) -> None:
        try:
            await invoke(self.tx, *calls)
        except DatabaseAway:
            raise
        except Exception as error:
            raise Failed(*calls) from error

    async def _run_carefully(self, call: Call) -> None:
        try:
            async with self.tx.savepoint():
                await invoke(self.tx, call)
        except DatabaseAway:
            raise
        except Exception as error:  # noqa: BLE001 - whatever an author's code raises is parked, that is the point
            with working_on_call(call):
                log.warning("a reaction failed and is parked", extra={"reaction": call.reaction.name, "change": call.change.name}, exc_info=error)
            await self._park(call, parking.Failure(error))

    async def _park(self, call: Call, failure: parking.Failure) -> None:
        tx = self._as_kit(call)
        await parking.park(tx, call.reaction.name, call.change, call.target, failure)
        self.parked.add((call.reaction.name, (call.change.source, call.change.stream)))
        metrics.parked.labels(call.reaction.name).inc()
        if self.suspects != set() and failure.state == "retrying" and await parking.failing_streams(tx, call.reaction.name) >= parking.FUSE_STREAMS:
            await parking.blow_fuse(tx, call.reaction.name, failure)

    def _as_kit(self, call: Call) -> Tx:
        act_for(self.tx, call)
        return self.tx


def _one_set(before: Call, call: Call) -> bool:
    """Whether a reaction to many changes takes both at once: they follow each other in one stream."""
    return call.reaction is before.reaction and call.target == before.target and call.change.stream == before.change.stream


def act_for(tx: Tx, call: Call) -> None:
    """Gives the transaction the tenant of the stream the call writes, and the change as the cause of what is written."""
    change = call.change
    context = replace(change.context, cause=change.name, hops=change.context.hops + 1)
    tx.act_as(stream_id(call.target, "org"), stream_id(call.target, "user") or stream_id(change.stream, "user"), context, change)


def working_on_call(call: Call) -> AbstractContextManager[None]:
    context = call.change.context
    return working_on(flow_id=context.flow_id, org_id=stream_id(call.target, "org"), trace_id=trace_id(context.traceparent))


async def invoke(tx: Tx, *calls: Call) -> None:
    """Runs one reaction for one change, or for several of one stream when it takes many.

    What it makes of several has the last one as its cause, and belongs to their flow when they are of one flow.
    """
    call = calls[-1]
    act_for(tx, call)
    if len(calls) > 1:
        flows, hops = {one.change.context.flow_id for one in calls}, max(one.change.context.hops for one in calls) + 1
        tx.act_as(tx.org_id, tx.user_id, replace(tx.context, hops=hops, flow_id=flows.pop() if len(flows) == 1 else None), call.change)
    with working_on_call(call), span(call.reaction.name, call.change.traceparent) as traceparent:
        if traceparent:
            tx.act_as(tx.org_id, tx.user_id, replace(tx.context, traceparent=traceparent), call.change)
        rows = [one.reaction.pattern.row.of(one.change) for one in calls]
        await call.reaction.function(tx, rows if call.reaction.many else rows[0])
    metrics.reactions_run.labels(call.reaction.name).inc(len(calls))
