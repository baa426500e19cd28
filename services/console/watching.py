"""Watching: who waits for a flow in this process is woken when something about it was committed here."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from uuid import UUID

_watchers: dict[UUID, set[asyncio.Event]] = defaultdict(set)


@contextmanager
def watching(flow_id: UUID) -> Iterator[asyncio.Event]:
    """An event that is set whenever the flow has changed. Another replica's commits are not heard: look now and then as well."""
    event = asyncio.Event()
    _watchers[flow_id].add(event)
    try:
        yield event
    finally:
        _watchers[flow_id].discard(event)
        if not _watchers[flow_id]:
            del _watchers[flow_id]


def tell(flow_ids: Iterable[UUID]) -> None:
    for flow_id in flow_ids:
        for event in _watchers.get(flow_id, ()):
            event.set()
