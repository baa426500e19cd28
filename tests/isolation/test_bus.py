"""Every topic and every user of the bus: each reads and writes exactly its own, by the broker's own word and by trying."""

import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from deploy.contracts import services
from deploy.plan import data_plane_names
from tests.flows.people import ready_database
from tests.isolation import kafka
from tests.isolation.tenants import Tenant, look
from tests.mesh import TestMesh, eventually

NOBODYS = ("__consumer_offsets", "__transaction_state", "__share_group_state", r"probe\..+")
"""The broker's own, and what other tests make for themselves."""


def rights(mesh: TestMesh) -> dict[str, dict[str, set[str]]]:
    """Who may do what with each topic that there is. A topic that no rule speaks of is an error."""
    holders = {r["topic"]: f"agent-{r['data_plane']}" for r in look(mesh, "provisioning", "SELECT topic, data_plane FROM provisioning.tenants WHERE opened")}
    return {name: _rights(name, holders) for name in kafka.topics(mesh)}


def _rights(topic: str, holders: dict[str, str]) -> dict[str, set[str]]:
    kinds: list[tuple[str, dict[str, set[str]]]] = [
        (r"(\w+)\.changes", {**{service: {"READ"} for service in services()}, "connect": {"WRITE"}}),
        (r"dataplane\.([\w-]+)\.assignments", {"agent-{}": {"READ"}, "connect": {"WRITE"}}),
        (r"dataplane\.([\w-]+)\.reports", {"agent-{}": {"WRITE"}, "provisioning": {"READ"}}),
        (r"(?:tenant|pool)\..+\.feed", {"connect": {"WRITE", "CREATE"}, "provisioning": {"CREATE"}, holders.get(topic, "nobody"): {"READ"}}),
        (r"_connect_\w+", {"connect": {"READ", "WRITE", "CREATE"}}),
        (r"__debezium-heartbeat\..+", {"connect": {"WRITE", "CREATE"}}),
        ("|".join(NOBODYS), {}),
    ]
    for pattern, allowed in kinds:
        if found := re.fullmatch(pattern, topic):
            return {user.format(*found.groups()): what for user, what in allowed.items()}
    raise AssertionError(f"who may read and write {topic}? Say it here")


def granted(mesh: TestMesh) -> dict[str, dict[str, set[str]]]:
    """What the broker says to each user, turned round: the rights on each topic."""
    names = kafka.topics(mesh)
    with ThreadPoolExecutor(4) as pool:
        said = dict(zip(kafka.users(mesh), pool.map(partial(kafka.rights_on_topics, mesh, names=names), kafka.users(mesh)), strict=True))
    return {name: {user: topics[name] for user, topics in said.items() if name in topics} for name in names}


def test_every_user_has_exactly_its_rights_on_every_topic(mesh: TestMesh, ann: Tenant, eve: Tenant) -> None:
    def agree() -> bool:
        wanted, there = rights(mesh), granted(mesh)
        differing = {t: (there[t], wanted[t]) for t in wanted.keys() & there.keys() if there[t] != {u: r for u, r in wanted[t].items() if u != "nobody"}}
        assert not differing, differing
        assert {f"tenant.{t.org_id}.feed" for t in (ann, eve)} <= there.keys()
        return True

    eventually(agree, what="rights as they should be")


def test_every_user_joins_exactly_its_own_groups_and_rules_nothing(mesh: TestMesh) -> None:
    groups = kafka.groups(mesh)
    assert set(groups) >= set(services())
    for user in kafka.users(mesh):
        assert kafka.rights_on_groups(mesh, user, groups) == {g for g in groups if g == user or g.startswith(f"{user}.")}, user
        assert kafka.rights_on_the_cluster(mesh, user) == ({"ALTER"} if user == "provisioning" else set()), user


@pytest.fixture(scope="module")
def some(mesh: TestMesh, ann: Tenant, eve: Tenant) -> list[str]:
    """One topic of every kind, of each service and data plane, and the feeds of both tenants."""
    feeds = {f"tenant.{t.org_id}.feed" for t in (ann, eve)}
    return [t for t in kafka.topics(mesh) if not t.startswith(("tenant.", "__", "probe.")) or t in feeds]


def test_who_may_not_write_is_refused(mesh: TestMesh, some: list[str]) -> None:
    """What is allowed is not tried: it would be read as if it were meant."""
    wanted = rights(mesh)
    foreign = {user: [t for t in some if "WRITE" not in wanted[t].get(user, ())] for user in kafka.users(mesh)}
    with ThreadPoolExecutor(4) as pool:
        refused = dict(zip(foreign, pool.map(lambda user: kafka.refused_writes(mesh, user, foreign[user]), foreign), strict=True))
    assert refused == {user: set(topics) for user, topics in foreign.items()}


def test_who_may_not_read_is_refused_and_who_may_reads(mesh: TestMesh, some: list[str]) -> None:
    wanted, users = rights(mesh), kafka.users(mesh)
    with ThreadPoolExecutor(4) as pool:
        reads = dict(zip(users, pool.map(lambda user: kafka.readable(mesh, user, some), users), strict=True))
    assert reads == {user: {t for t in some if "READ" in wanted[t].get(user, ())} for user in users}


def test_no_data_plane_reads_or_writes_what_is_anothers(mesh: TestMesh, ann: Tenant, eve: Tenant) -> None:
    planes = mesh.mesh.plan.data_planes
    if len(planes) < 2:
        pytest.skip("not run: one data plane only; make test-apart has two")
    assert planes == data_plane_names(len(planes))
    while (holders := _a_tenants_topic_on_each(mesh)).keys() != set(planes):
        ready_database(mesh.sign_up())  # who comes next is placed where there is most room
    for mine in planes:
        own = {holders[mine], f"dataplane.{mine}.assignments"}
        others = [t for p in planes if p != mine for t in (holders[p], f"dataplane.{p}.assignments", f"dataplane.{p}.reports")]
        assert kafka.readable(mesh, f"agent-{mine}", [*own, *others]) == own
        assert kafka.refused_writes(mesh, f"agent-{mine}", [*own, *others]) == {*own, *others}


def _a_tenants_topic_on_each(mesh: TestMesh) -> dict[str, str]:
    return {r["data_plane"]: r["topic"] for r in look(mesh, "provisioning", "SELECT data_plane, topic FROM provisioning.tenants WHERE opened")}
