"""What a service logs."""

import logging

from shared.log import Seldom


def record(logger: str, line: int, at: float) -> logging.LogRecord:
    made = logging.LogRecord(logger, logging.ERROR, "client.py", line, "Unable connect to node with id %s", (1,), None)
    made.created = at
    return made


def test_what_a_library_says_many_times_a_second_is_told_once_in_ten_seconds_and_counted() -> None:
    seldom = Seldom()
    told = [r for i in range(101) if seldom.filter(r := record("aiokafka.conn", 7, 1_000 + i / 5))]
    assert [(r.created, getattr(r, "not_repeated", None)) for r in told] == [(1_000, None), (1_010, 49), (1_020, 49)]
    assert seldom.filter(record("aiokafka.conn", 8, 1_000.1)), "another line"
    assert all(seldom.filter(record("mesh", 9, 1_000)) for _ in range(3)), "our own"
