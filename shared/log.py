"""JSON logs, one object a line, with the flow, tenant and trace of what is being done."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import orjson

log = logging.getLogger("mesh")

about: ContextVar[dict[str, str]] = ContextVar("about", default={})  # noqa: B039 - never mutated, only replaced
"""What the current task works on: ``flow_id``, ``org_id``, ``trace_id``, ``request_id``."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextmanager
def working_on(**what: object) -> Iterator[None]:
    """Every line that is logged inside says what it is about; None is left out."""
    token = about.set(about.get() | {name: str(value) for name, value in what.items() if value is not None})
    try:
        yield
    finally:
        about.reset(token)


class _Json(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self.service,
            "message": record.getMessage(),
            **about.get(),
            **{k: v for k, v in vars(record).items() if k not in _STANDARD},
        }
        if record.exc_info and record.exc_info[1] is not None:
            entry["error"] = repr(record.exc_info[1])
            entry["stack"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str).decode()


class Seldom(logging.Filter):
    """Lets a line of other libraries through once in ten seconds, with how often it was not: a client says many times a second that its server is away."""

    SECONDS = 10.0

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == log.name:
            return True
        line = record.pathname, record.lineno
        last, unsaid = self._said.get(line, (-self.SECONDS, 0))
        if record.created - last < self.SECONDS:
            self._said[line] = last, unsaid + 1
            return False
        self._said[line] = record.created, 0
        if unsaid:
            record.not_repeated = unsaid
        return True


def set_up_logs(service: str, level: str) -> None:
    """Sends every log of the process to standard output as JSON."""
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(Seldom())
    formatter = _Json(service)
    formatter.converter = __import__("time").gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    log.setLevel(level)
