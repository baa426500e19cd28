"""Which changes of a stream are ready, held, or seen already."""

from shared.changes import RESTATE
from shared.positions import Progress
from tests.kit.conftest import Log


def progress(log: Log, *, epoch: int = 1, seq: int = 0) -> Progress:
    return Progress(("other", log.stream), epoch, seq, frozenset())


def start(log: Log, *, ordered: bool) -> dict[str, object]:
    return {"table": RESTATE, "op": "restate", "after": {"marker": "start", "ordered": ordered}}


def test_a_hole_in_a_stream_is_closed_for_reactions_by_a_restatement_that_a_person_ordered_and_by_no_other() -> None:
    log = Log()
    reading = progress(log, seq=2)
    late = log.change(7, seq=5)
    reading.offer(late, jump=False)
    reading.offer(log.change(0, seq=8, **start(log, ordered=False)), jump=False)  # type: ignore[arg-type]
    assert (reading.ready, reading.gap) == ([], (3, 4))
    reading.offer(log.change(0, seq=11, **start(log, ordered=True)), jump=False)  # type: ignore[arg-type]
    assert [c.seq for c in reading.ready] == [5, 8, 11], "what came is applied, in order"
    assert reading.gap is None


def test_a_new_epoch_starts_over_and_forgets_what_was_held_of_the_old_one() -> None:
    log = Log(epoch=1)
    reading = progress(log, seq=2)
    reading.offer(log.change(1, seq=5), jump=False)
    log.epoch = 2
    reading.offer(log.change(2, seq=4), jump=False)
    assert (reading.epoch, reading.seq, reading.ready, reading.raised) == (2, 0, [], True)
    assert sorted(reading.hold) == [4], "the fifth was the old database's"
    reading.offer(log.change(0, seq=6, **start(log, ordered=True)), jump=False)  # type: ignore[arg-type]
    assert [c.seq for c in reading.ready] == [4, 6]


def test_a_change_of_an_epoch_that_is_over_is_passed_over() -> None:
    log = Log(epoch=1)
    reading = progress(log, epoch=2, seq=3)
    reading.offer(log.change(1, seq=4), jump=True)
    assert (reading.ready, reading.hold) == ([], {})
