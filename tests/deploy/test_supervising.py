"""What the supervisor promises about the processes of a mesh."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
import requests
from confluent_kafka.admin import AclBindingFilter, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from deploy import process
from deploy.errors import MeshError
from deploy.process import Running
from deploy.stack import Mesh
from deploy.state import State, write_atomically
from tests.deploy.bus import alive, lose_the_slot, pids, slot, travels, write_change

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def mended(bus: Mesh) -> Iterator[None]:
    """Whatever a test left behind, the next one begins with a mesh that is well."""
    yield
    for hold in bus.state.hold("x").parent.iterdir():
        hold.unlink()
    if bus.pid("supervisor") is None:
        Mesh.start(bus.state.root, services=())
    bus.wait_healthy(60)


def test_killed_processes_are_started_again_and_the_mesh_is_healthy(bus: Mesh) -> None:
    killed = {name: bus.kill(name) for name in ("kafka", "connect", "postgres", "dataplane-local")}
    for name, pid in killed.items():
        bus.wait(lambda name=name, pid=pid: bus.pid(name) not in (None, pid), 15, f"another {name}")
    bus.wait_healthy(30)


def test_a_held_process_stays_down_until_it_is_released(bus: Mesh) -> None:
    bus.hold("dataplane-local")
    bus.kill("dataplane-local")
    time.sleep(1.5)
    assert bus.pid("dataplane-local") is None
    bus.release("dataplane-local")
    bus.wait_healthy(30)


def test_without_its_supervisor_the_mesh_runs_on_and_the_next_one_adopts_it(bus: Mesh) -> None:
    before = pids(bus) - {bus.pid("supervisor")}
    bus.kill("supervisor")
    write_change(bus, "org:unsupervised")
    assert travels(bus, "org:unsupervised")
    Mesh.start(bus.state.root, services=())
    assert pids(bus) - {bus.pid("supervisor")} == before


def test_a_failed_connector_task_runs_again_once_its_lost_right_is_back(bus: Mesh) -> None:
    nothing_to_write = AclBindingFilter(
        ResourceType.TOPIC, "org.changes", ResourcePatternType.LITERAL, "User:connect", "*", AclOperation.ANY, AclPermissionType.ANY
    )
    admin = bus.broker.admin()
    admin.delete_acls([nothing_to_write])[nothing_to_write].result(timeout=10)
    write_change(bus, "org:after-failure")
    assert travels(bus, "org:after-failure", within=40)
    bus.wait_healthy(30)


def test_a_slot_that_postgres_has_given_up_does_not_keep_the_connector_from_a_new_one(bus: Mesh) -> None:
    bus.hold("connect")
    bus.kill("connect")
    lose_the_slot(bus)
    bus.wait(lambda: slot(bus) == "kept", 30, "another slot")
    bus.release("connect")
    bus.wait(lambda: slot(bus) == "read", 30, "a slot that the connector reads, though it begins after what the connector read last")
    write_change(bus, "org:after-the-lost-slot")
    assert travels(bus, "org:after-the-lost-slot")


def test_a_removed_connector_and_a_removed_topic_are_made_again(bus: Mesh) -> None:
    connect = bus.status()["connect"]
    login = (connect["username"], connect["password"])
    requests.delete(f"{connect['url']}/connectors/mesh-changes", auth=login, timeout=5).raise_for_status()
    admin = bus.broker.admin()
    admin.delete_topics(["user.changes"])["user.changes"].result(timeout=10)
    write_change(bus, "user:after-removal", "user")
    assert travels(bus, "user:after-removal", "user", within=60)


def test_a_wiped_kafka_is_made_again_with_users_topics_rights_and_connectors(bus: Mesh) -> None:
    bus.hold("kafka")
    bus.kill("kafka")
    shutil.rmtree(bus.state.kafka_data)
    write_change(bus, "org:during-the-wipe")
    bus.release("kafka")
    assert travels(bus, "org:during-the-wipe", within=60)
    bus.wait_healthy(60)


def test_down_ends_everything_even_after_a_crash_of_the_supervisor(bus: Mesh) -> None:
    write_change(bus, "org:before-down")
    assert travels(bus, "org:before-down")
    running = pids(bus)
    servers = [child.pid for pid in running for child in psutil.Process(pid).children(recursive=True)]
    bus.kill("supervisor")
    bus.stop()
    assert [pid for pid in (*running, *servers) if alive(pid)] == []
    assert process.strays(bus.state) == []

    Mesh.start(bus.state.root, services=())
    assert travels(bus, "org:before-down")


def test_a_recycled_pid_is_not_ended(tmp_path_factory: pytest.TempPathFactory) -> None:
    state = State(tmp_path_factory.mktemp("recycled"))
    state.create()
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        write_atomically(state.record("kafka"), f'{{"pid": {stranger.pid}, "started": 1.0}}')
        Mesh(state).stop()
        assert Running.recorded(state, "kafka") is None
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_port_in_use_is_named_with_its_holder(bus: Mesh, tmp_path_factory: pytest.TempPathFactory) -> None:
    base = bus.plan.ports["postgres"] - 20
    with pytest.raises(MeshError, match=rf"postgres needs port {base + 20}: .*postgres.* \(pid {bus.pid('postgres')}\)"):
        Mesh.start(tmp_path_factory.mktemp("second"), services=(), port_base=base)
