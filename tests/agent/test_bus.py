"""The agent as a process, on a real broker: what it hears, what it answers, and what it survives."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest

from services.agent.inbox import Record
from tests.agent.bus import PLANE, AgentProcess, Bus, OwnBroker
from tests.agent.server import Server, running
from tests.agent.world import ASSIGNMENTS, Db, Member, Org

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnBroker]:
    broker = OwnBroker(tmp_path_factory.mktemp("agent bus"))
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@pytest.fixture(scope="module")
def bus(broker: OwnBroker) -> Iterator[Bus]:
    bus = Bus(broker.broker)
    yield bus
    bus.close()


@pytest.fixture(scope="module")
def own_plane() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def agent(broker: OwnBroker, bus: Bus, own_plane: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    agent = AgentProcess(broker.broker, own_plane, tmp_path_factory.mktemp("agent"))
    agent.start()
    try:
        bus.until(lambda one: one["kind"] == "hello", 60)
        yield agent
    finally:
        agent.stop(signal.SIGKILL)


@pytest.fixture
def plane(agent: AgentProcess, own_plane: Server) -> Server:
    """The data plane's server, once an agent runs there."""
    assert agent.pid
    return own_plane


def _tenant(topic: str | None = None) -> tuple[Org, Db, Member]:
    org = Org()
    org.topic = topic or org.topic
    db = Db(org)
    return org, db, Member(db)


def _ready(bus: Bus, plane: Server, org: Org, db: Db, owner: Member) -> None:
    bus.make_topic(org.topic)
    bus.say(org.assignment(), org.organization(), db.record(), owner.record())
    bus.until_state(owner.id, "ready")
    assert asyncio.run(owner.run(plane, "SELECT 1"))


def _refused(owner: Member, plane: Server) -> bool:
    try:
        asyncio.run(owner.run(plane, "SELECT 1"))
    except (asyncpg.PostgresError, OSError):
        return True
    return False


def _eventually(condition: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not become so in time"
        time.sleep(0.05)


def test_a_new_tenant_is_usable_quickly(bus: Bus, plane: Server, record_property: Callable[[str, object], None]) -> None:
    took = []
    for _ in range(5):
        org, db, owner = _tenant()
        bus.make_topic(org.topic)
        start = time.perf_counter()
        bus.say(org.assignment(), org.organization(), db.record(), owner.record())
        bus.until_state(owner.id, "ready")
        took.append(time.perf_counter() - start)
        asyncio.run(owner.run(plane, "CREATE TABLE things (id int)"))
    record_property("seconds", took)
    print(f"new tenant, record to report: {[f'{one * 1000:.0f} ms' for one in sorted(took)]}")
    assert min(took) < 2, "one of several is quick also on a busy machine; the figure itself is the benchmark's"


def test_a_topic_and_its_right_may_come_later_and_stall_nobody(bus: Bus, plane: Server) -> None:
    late, late_db, late_owner = _tenant()
    never, _, _ = _tenant()
    bus.make_topic(late.topic, granted=False)
    bus.say(late.assignment(), never.assignment(), late.organization(), late_db.record(), late_owner.record())
    _ready(bus, plane, *_tenant())
    bus.grant(late.topic)
    bus.until_state(late_owner.id, "ready")
    assert asyncio.run(late_owner.run(plane, "SELECT 1"))


def test_a_second_tenant_of_a_pool_topic_is_read_from_its_beginning(bus: Bus, plane: Server) -> None:
    pool = f"pool.{PLANE}.{time.monotonic_ns()}.feed"
    first, second = _tenant(pool), _tenant(pool)
    bus.make_topic(pool)
    bus.say(second[0].organization(), second[1].record(), second[2].record())
    bus.say(first[0].assignment(), first[0].organization(), first[1].record(), first[2].record())
    bus.until_state(first[2].id, "ready")
    bus.say(second[0].assignment())
    bus.until_state(second[2].id, "ready")
    assert asyncio.run(second[2].run(plane, "SELECT 1"))


def test_bad_records_are_skipped(bus: Bus, plane: Server, agent: AgentProcess) -> None:
    org, db, owner = _tenant()
    other = Org()
    bus.make_topic(org.topic)
    bus.say(
        org.assignment(),
        Record(org.topic, 0, b"\xff\xfe", b"{}"), Record(org.topic, 0, b"x/y", None),
        Record(org.topic, 0, f"{org.id}/{db.id}".encode(), b"\xff not json"), Record(org.topic, 0, f"{org.id}/{db.id}".encode(), b"{}"),
        other.organization()._replace(topic=org.topic), owner.record()._replace(topic=org.topic), db.record()._replace(topic=ASSIGNMENTS),
        db.record()._replace(key=f"{org.id}/{owner.id}".encode()), org.gone(other.id),
        org.organization(), db.record(), owner.record(),
    )  # fmt: skip
    bus.until_state(owner.id, "ready")
    assert asyncio.run(owner.run(plane, "SELECT 1"))
    assert agent.log.read_text().count("a record was skipped") >= 7


def test_the_trace_goes_on_and_comes_back(bus: Bus, agent: AgentProcess) -> None:
    assert agent.pid
    org, db, _ = _tenant()
    flow = str(org.id)
    bus.make_topic(org.topic)
    bus.say(org.assignment(), db.record(flow_id=flow, traceparent=PARENT))
    seen = bus.until_state(db.id, "ready")
    assert seen["flow_id"] == flow
    assert seen["traceparent"].split("-")[1] == TRACE
    assert seen["traceparent"] != PARENT


def test_no_secret_is_in_its_log(bus: Bus, plane: Server, agent: AgentProcess) -> None:
    org, db, owner = _tenant()
    _ready(bus, plane, org, db, owner)
    log = agent.log.read_text()
    assert "SCRAM-SHA-256$" not in log
    assert "postgresql://" not in log
    assert str(org.id) in log


def test_it_stops_quickly_and_starts_again_with_a_higher_epoch(bus: Bus, plane: Server, agent: AgentProcess) -> None:
    org, db, owner = _tenant()
    _ready(bus, plane, org, db, owner)
    before = bus.messages[-1]
    code, seconds = agent.stop()
    assert code == 0
    assert seconds < 3
    agent.start()
    report = bus.until(lambda one: one["kind"] == "report" and one["complete"] and one["org_id"] == str(org.id))
    assert report["agent_epoch"] > before["agent_epoch"]
    assert report["assignment_generation"] == 1
    assert {(one["kind"], one["state"]) for one in report["resources"]} == {(kind, "ready") for kind in ("organization", "database", "login")}


def test_what_was_removed_while_it_was_killed_is_dropped(bus: Bus, plane: Server, agent: AgentProcess) -> None:
    org, db, owner = _tenant()
    _ready(bus, plane, org, db, owner)
    agent.stop(signal.SIGKILL)
    bus.say(org.gone(db.id))
    agent.start()
    bus.until_state(db.id, "gone")
    assert _refused(owner, plane)


def test_it_enforces_while_the_broker_is_gone_and_catches_up(bus: Bus, plane: Server, agent: AgentProcess, broker: OwnBroker) -> None:
    org, db, owner = _tenant()
    _ready(bus, plane, org, db, owner)
    broker.kill()
    try:
        agent.stop(signal.SIGKILL)
        agent.start()
        asyncio.run(plane.fetch(f"DROP ROLE {owner.username}"))
        _eventually(lambda: not _refused(owner, plane))
    finally:
        broker.start()
    bus.say(org.organization("suspended"))
    bus.until_state(org.id, "suspended", 30)
    assert _refused(owner, plane)


def test_it_catches_up_after_its_server_was_down(bus: Bus, plane: Server) -> None:
    org, db, owner = _tenant()
    _ready(bus, plane, org, db, owner)
    plane.stop()
    try:
        late = Db(org)
        bus.say(late.record())
        failed = bus.until_state(late.id, "failed")
        assert "cannot be reached" in failed["error"]
    finally:
        plane.start()
    bus.until_state(late.id, "ready", 30)
