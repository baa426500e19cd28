"""Every promise is shown by a test that exists and passes."""

import pytest

from tests.contracts.promises import DOCUMENT, OUTCOMES, Outcomes, exists, promises
from tests.rules.files import ROOT

TABLE = (ROOT / DOCUMENT).read_text()


def _is_whole(config: pytest.Config) -> bool:
    """Whether this session is the whole suite: nothing chosen, nothing left out."""
    option = config.option
    chosen = option.keyword or option.markexpr or option.deselect or option.ignore or option.ignore_glob
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS and not chosen


def test_every_promise_names_tests_that_exist() -> None:
    table = list(promises(TABLE))
    assert len(table) > 100
    wrong = [f"{p.words}: {t or 'no test'}" for p in table for t in p.tests or ("",) if not (t and exists(ROOT, t))]
    assert not wrong, "\n".join(wrong)


def test_no_promise_is_written_twice() -> None:
    words = [p.words for p in promises(TABLE)]
    assert len(words) == len(set(words))


@pytest.mark.last
def test_every_promise_is_shown_by_a_test_that_passed(request: pytest.FixtureRequest) -> None:
    outcomes, whole = request.config.stash[OUTCOMES], _is_whole(request.config)
    wrong = []
    for promise in promises(TABLE):
        for test in promise.tests:
            ended = outcomes.of(test)
            if ended - {"passed"} or (whole and not ended):
                wrong.append(f"{promise.words}: {test} {', '.join(sorted(ended)) or 'was not collected'}")
    assert not wrong, "\n".join(wrong)


BAD = """
| promise | test |
| --- | --- |
| It is there | `tests/contracts/test_acceptance.py::test_no_promise_is_written_twice` |
| It is not there | `tests/contracts/test_acceptance.py::test_that_nobody_wrote` |
| Nothing shows it | by hand |
"""


def test_a_promise_without_its_test_is_caught() -> None:
    there, wrong, nothing = promises(BAD)
    assert exists(ROOT, there.tests[0])
    assert not exists(ROOT, wrong.tests[0])
    assert not exists(ROOT, "tests/no/file.py::test_x")
    assert nothing.tests == ()


@pytest.mark.parametrize(("outcome", "good"), [("passed", True), ("failed", False), ("skipped", False), (None, False)])
def test_a_test_counts_when_all_of_its_cases_passed(outcome: str | None, good: bool) -> None:
    outcomes = Outcomes({"tests/a.py::test_b[1]", "tests/a.py::test_b[2]", "tests/a.py::test_bc"}, {"tests/a.py::test_b[1]": "passed"})
    if outcome:
        outcomes.ended["tests/a.py::test_b[2]"] = outcome
    assert (outcomes.of("tests/a.py::test_b") == {"passed"}) == good
    assert not outcomes.of("tests/a.py::test_none")
