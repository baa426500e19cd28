"""The benchmarks' own arithmetic, and what they say about the machine."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench import conditions, run
from tests.bench.cases import CASES
from tests.bench.registry import Bench, percentile


def test_a_percentile_is_a_value_that_was_seen() -> None:
    assert [percentile([1.0, 2.0, 3.0, 4.0], p) for p in (0, 25, 50, 51, 99, 100)] == [1, 1, 2, 3, 4, 4]
    assert percentile([7.0], 99) == 7


def test_what_counts_is_the_median_of_the_runs_and_it_is_judged_by_its_goal() -> None:
    bench = Bench(quick=True)
    for value in (30.0, 10.0, 20.0):
        bench.saw("slow", "ms", value, at_most=19)
        bench.saw("rate", "/s", value, at_least=20)
        bench.saw("other", "MB", value)
    assert [(f.value, f.met) for f in bench.figures.values()] == [(20, False), (20, True), (20, None)]


@pytest.mark.parametrize(("others", "warned"), [(80.0, True), (1.0, False)])
def test_a_busy_machine_is_said_loudly_and_measured_all_the_same(
    others: float, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = replace(conditions.look(0.01), others_percent=others)
    monkeypatch.setattr(conditions, "look", lambda *_: found)

    async def measured(bench: Bench) -> None:
        bench.saw("answer", "pieces", 42)

    monkeypatch.setitem(CASES, "fake", measured)
    with pytest.raises(SystemExit) as ended:
        run.command(["fake"], tmp_path / "bench.json", quick=True, names_only=False)
    assert ended.value.code == 0
    result = json.loads((tmp_path / "bench.json").read_text())["results"][0]
    assert (result["figures"][0]["runs"], result["conditions"]["busy"]) == ([42], warned)
    assert ("THE MACHINE WAS BUSY" in capsys.readouterr().out) is warned


def test_a_case_that_cannot_be_measured_is_named_and_ends_in_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(bench: Bench) -> None:
        raise RuntimeError("no such engine here")

    monkeypatch.setitem(CASES, "broken", broken)
    with pytest.raises(SystemExit) as ended:
        run.command(["broken"], tmp_path / "bench.json", quick=True, names_only=False)
    assert ended.value.code == 1
    assert json.loads((tmp_path / "bench.json").read_text())["results"][0]["problem"] == "RuntimeError: no such engine here"
    assert "no such engine here" in capsys.readouterr().err


def test_the_command_names_its_cases_in_their_order() -> None:
    listed = subprocess.run([sys.executable, "-m", "deploy.cli", "bench", "--list"], check=True, capture_output=True, text=True).stdout.split()
    assert listed == ["start", "idle", "signup", "latency", "drain", "write", "restate", "flows", "scale", "poison", "noisy", "agents"]
