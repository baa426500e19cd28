"""Every promise is shown by a test that exists and passes."""

import inspect

import pytest

import tests.conftest
from tests.contracts.promises import DOCUMENT, Outcomes, Promise, exists, promises
from tests.rules.files import ROOT

TABLE = (ROOT / DOCUMENT).read_text()


def test_every_promise_names_tests_that_exist() -> None:
    table = list(promises(TABLE))
    assert len(table) > 100
    wrong = [f"{p.words}: {t or 'no test'}" for p in table for t in p.tests or ("",) if not (t and exists(ROOT, t))]
    assert not wrong, "\n".join(wrong)


def test_no_promise_is_written_twice() -> None:
    words = [p.words for p in promises(TABLE)]
    assert len(words) == len(set(words))


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


ONE = [Promise("It is there", ("tests/a.py::test_b",))]


@pytest.mark.parametrize(("outcome", "good"), [("passed", True), ("failed", False), ("skipped", False), (None, False)])
def test_a_test_counts_when_all_of_its_cases_passed(outcome: str | None, good: bool) -> None:
    outcomes = Outcomes(ONE, {"tests/a.py::test_b[1]", "tests/a.py::test_b[2]", "tests/a.py::test_bc"}, {"tests/a.py::test_b[1]": "passed"})
    if outcome:
        outcomes.ended["tests/a.py::test_b[2]"] = outcome
    assert (list(outcomes.unshown()) == []) == good


def test_a_test_that_is_not_there_shows_nothing() -> None:
    assert list(Outcomes(ONE).unshown()) == ["It is there: tests/a.py::test_b was not collected"]


def test_this_session_is_judged_by_the_table(request: pytest.FixtureRequest) -> None:
    """In the process that hears of all tests: here that may be another one."""
    judges = [one for one in request.config.pluginmanager.get_plugins() if isinstance(one, Outcomes)]
    assert [one.rows for one in judges] == ([] if hasattr(request.config, "workerinput") else [list(promises(TABLE))])
    assert "watch(config, " in inspect.getsource(tests.conftest.pytest_configure)


def test_a_run_that_does_not_show_a_promise_ends_badly(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `make test`, where other processes run the tests; and a run of a part promises nothing."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini("[pytest]\ntestpaths = tests")
    pytester.makeconftest("""
        from tests.contracts.promises import watch

        def pytest_configure(config):
            watch(config, "| It is kept | `tests/test_it.py::test_kept` |\\n| It is skipped | `tests/test_it.py::test_skipped` |")
        """)
    folder = pytester.mkdir("tests")
    (folder / "test_it.py").write_text("import pytest\n\ndef test_kept():\n    pass\n\n@pytest.mark.skip\ndef test_skipped():\n    pass\n")
    done = pytester.runpytest_subprocess("-n", "1", "-p", "no:randomly")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    assert "It is skipped: tests/test_it.py::test_skipped skipped" in done.outlines
    assert not [line for line in done.outlines if line.startswith("It is kept")]
    assert pytester.runpytest_subprocess("-p", "no:randomly", "-k", "skipped").ret == pytest.ExitCode.OK
