"""Bytes from a change topic are understood, or told."""

from typing import Any

import orjson
import pytest

from shared.changes import Undecodable, decode
from tests.kit.conftest import Log


@pytest.mark.parametrize("raw", [b"", b"nonsense", b"[]", b'{"stream": 1}', b'{"stream":"a","seq":"x"}', b"\xff\xfe", None])
def test_bytes_that_are_no_change_record_are_told(raw: bytes | None) -> None:
    with pytest.raises(Undecodable):
        decode("other", raw)


@pytest.mark.parametrize(
    "unknown",
    [
        {"after": None},
        {"after": ["a", "row"]},
        {"before": "a row"},
        {"op": "merge"},
        {"op": "delete", "before": None},
        {"table": None, "row": {}, "after": None},
    ],
)
def test_a_record_of_another_version_than_ours_is_told(unknown: dict[str, Any], log: Log) -> None:
    known = orjson.loads(log.change(1).raw)
    assert decode("other", orjson.dumps(known | {"version": 2, "color": "red"})), "more than we know is no matter"
    with pytest.raises(Undecodable):
        decode("other", orjson.dumps(known | unknown))
