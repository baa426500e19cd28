"""The wiring: every step of every flow is led to by something that exists, and what is published is read."""

import importlib
import pkgutil
import re
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import schemas
from deploy.plan import SERVICES
from schemas.flows import CURRENT, FLOWS
from schemas.org import Invitation, Organization
from shared import reactions, workers
from shared.flows import Flow, Step, step
from shared.reactions import Reaction
from shared.rows import Pattern, Row

ROOT = Path(__file__).parent.parent.parent

_PUBLISH = re.compile(r"publish_table\('(\w+)',\s*stream\s*=>\s*'([\w:]+)'")
_REPLICA = re.compile(r"replica_table\('\w+',\s*source\s*=>\s*'([\w.]+)'")

NOBODY_READS: dict[str, str] = {"console.orders": "every service's kit takes them"}
"""Published tables that no service reacts to or keeps a replica of, each with its reason."""

KNOWN_CYCLES: set[frozenset[str]] = set()
"""Services' tables that lead to each other for ever unless something stops it; each must be a decision."""


def _services() -> None:
    for service in SERVICES:
        for part in ("reactions", "workers"):
            if (ROOT / "services" / service / f"{part}.py").exists():
                importlib.import_module(f"services.{service}.{part}")


_services()
for _module in pkgutil.iter_modules(schemas.__path__):
    importlib.import_module(f"schemas.{_module.name}")

REACTIONS = [r for s in SERVICES for r in reactions.reactions_of(s)]
ACTORS = {r.name for r in REACTIONS if not r.many} | {j.name for s in SERVICES for j in workers.jobs_of(s)}
ROWS = {row.table: row for row in Row.__subclasses__() if row.__module__.startswith("schemas.")}
STEPS = [(flow, s) for flow in FLOWS.values() for s in flow.steps]


def migrations(service: str) -> str:
    """The text of a service's own migrations, without comments."""
    files = sorted((ROOT / "services" / service / "migrations").glob("*.sql"))
    return re.sub(r"--[^\n]*", "", "".join(f.read_text() for f in files))


def published(service: str) -> dict[str, str]:
    """Table and kind of stream of everything a service publishes, from its migrations."""
    return {f"{service}.{table}": stream for table, stream in _PUBLISH.findall(migrations(service))}


PUBLISHED = {table: stream for s in SERVICES for table, stream in published(s).items()}
REPLICAS = {
    source
    for sql in [*(migrations(s) for s in SERVICES), *(f.read_text() for f in (ROOT / "shared/migrations").glob("*.sql"))]
    for source in _REPLICA.findall(sql)
}


# What a flow must be


def unled(one: Step, actors: Iterable[str]) -> str | None:
    """Why nothing leads to the step."""
    if one.by and one.by not in actors:
        return f"nothing is registered as {one.by}"
    return None


def unmet(pattern: Pattern) -> str | None:
    """Why no change can match the pattern."""
    row = pattern.row
    if row.table not in PUBLISHED:
        return f"{row.table} is not published"
    if unknown := pattern.values.keys() - row.model_fields.keys():
        return f"{row.__name__} promises no {', '.join(sorted(unknown))}"
    return None


def ambiguous(flows: Iterable[Flow]) -> list[str]:
    """Pairs of flows that the same change could start, of which neither asks for more than the other."""
    firsts = [(f.name, f.steps[0]) for f in flows]
    return [f"{a} and {b}" for i, (a, one) in enumerate(firsts) for b, other in firsts[i + 1 :] if _same_start(one, other)]


def _same_start(one: Step, other: Step) -> bool:
    operations = {"inserted": {"insert"}, "updated": {"update"}, "changed": {"insert", "update"}, "deleted": {"delete"}}
    if one.row is not other.row or not operations[one.on] & operations[other.on] or len(one.values) != len(other.values):
        return False
    return all(_overlap(one.values[c], other.values[c]) for c in one.values.keys() & other.values.keys())


def _overlap(a: object, b: object) -> bool:
    return any(x == y or y == x for x in (a if isinstance(a, tuple) else (a,)) for y in (b if isinstance(b, tuple) else (b,)))


@pytest.mark.parametrize(("flow", "one"), STEPS, ids=[f"{f.name}: {s.name}" for f, s in STEPS])
def test_a_step_is_led_to_by_something_that_exists_and_met_by_a_row_that_travels(flow: Flow, one: Step) -> None:
    assert not unled(one, ACTORS)
    assert not unmet(one.pattern)
    assert not one.by or one.by.partition(".")[0] == one.row.owner(), "a service writes its own rows"
    assert one is flow.steps[0] or one.told or one.row.owner() == flow.owner, "the customer is told something when it fails"


@pytest.mark.parametrize("flow", FLOWS.values(), ids=lambda f: f.name)
def test_a_flow_has_an_owner_steps_of_different_names_and_ends_that_can_come(flow: Flow) -> None:
    assert flow.owner in SERVICES
    assert len({s.name for s in flow.steps}) == len(flow.steps)
    assert all(not unmet(p) for p in flow.cancelled_by)
    assert all(s.deadline.total_seconds() > 0 for s in flow.steps)


def test_a_change_starts_one_flow() -> None:
    assert ambiguous(CURRENT) == []


@pytest.mark.parametrize("reaction", REACTIONS, ids=lambda r: r.name)
def test_a_reaction_is_to_a_row_that_its_owner_publishes_on_the_stream_it_says(reaction: Reaction) -> None:
    row = reaction.pattern.row
    assert not unmet(reaction.pattern)
    stream = PUBLISHED[row.table]
    kinds = (row.stream,) if isinstance(row.stream, str) else row.stream
    assert stream == "row" or kinds == (stream,)


def test_what_is_published_is_read_by_somebody() -> None:
    read = {r.pattern.row.table for r in REACTIONS} | REPLICAS | {s.row.table for _, s in STEPS}
    assert {t for t in PUBLISHED if t not in read} - NOBODY_READS.keys() == set()
    assert NOBODY_READS.keys() <= PUBLISHED.keys(), "a reason without its table"


def reaction_graph() -> dict[str, set[str]]:
    """Which service's reactions read which service's rows: reader to sources."""
    graph: dict[str, set[str]] = {}
    for reaction in REACTIONS:
        graph.setdefault(reaction.service, set()).add(reaction.pattern.row.owner())
    return graph


def cycles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """The cycles that are met while sorting; empty when there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return {frozenset(error.args[1])}
    return set()


def test_services_that_react_to_each_other_in_a_circle_are_listed() -> None:
    assert cycles(reaction_graph()) == KNOWN_CYCLES


# Each rule on a bad example


def test_a_step_that_nothing_leads_to_is_caught() -> None:
    assert unled(step("made", Organization, by="org.no_such_reaction"), ACTORS)


def test_a_step_whose_row_promises_no_such_column_is_caught() -> None:
    assert unmet(step("made", Organization, colour="red").pattern)


def test_a_row_that_is_not_published_is_caught() -> None:
    class Ghost(Row):
        table = "org.ghosts"

    assert unmet(step("haunted", Ghost).pattern)


def test_two_flows_with_the_same_start_are_caught() -> None:
    one = Flow("one", 1, "org", (step("pending", Invitation, state="pending"),))
    other = Flow("other", 1, "org", (step("open", Invitation, on="inserted", state=("pending", "accepted")),))
    assert ambiguous([one, other]) == ["one and other"]
    assert not ambiguous([one, Flow("third", 1, "org", (step("gone", Invitation, on="deleted", state="pending"),))])


def test_a_circle_of_reactions_is_caught() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == {frozenset("abc")}
