"""Listening: topics that no change log feeds, such as what the agents at the data planes report.

Such records carry no number of ours, so what they do must be safe to do twice; a listener says so by state, not by position.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shared.settings import Settings
from shared.tx import Database


@dataclass(frozen=True)
class Record:
    """One record as it came from Kafka."""

    topic: str
    key: bytes | None
    value: bytes | None


Listen = Callable[[Database, Record], Awaitable[None]]


@dataclass(frozen=True)
class Listener:
    """One function with the topics it listens to; its consumer group is its name."""

    name: str
    topics: Callable[[Settings], list[str]]
    function: Listen

    @property
    def service(self) -> str:
        return self.name.partition(".")[0]


_all: dict[str, Listener] = {}


def listen(topics: Callable[[Settings], list[str]]) -> Callable[[Listen], Listen]:
    """Runs ``async def hear(database, record)`` for each record, in order for each key, at least once.

    Raises :class:`shared.changes.Undecodable` for a record it has no use for, which is counted and kept raw. Trouble of the
    database is waited out; whatever else it raises keeps the record raw as well, so that one poison stops nobody.
    """

    def register(function: Listen) -> Listen:
        name = f"{function.__module__.split('.')[1]}.{function.__name__}"
        _all[name] = Listener(name, topics, function)
        return function

    return register


def listeners_of(service: str) -> list[Listener]:
    return [one for one in _all.values() if one.service == service]
