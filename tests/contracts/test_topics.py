"""The change topics, as any Kafka client finds them."""

import json
import time
import uuid
from typing import Any

from confluent_kafka import Consumer
from confluent_kafka.admin import ConfigResource, ResourceType

from tests.mesh import Customer, TestMesh


def records(mesh: TestMesh, topic: str, key: str, count: int) -> list[dict[str, Any]]:
    """The first records of one key."""
    consumer = Consumer({**mesh.mesh.broker.client(), "group.id": f"test {uuid.uuid4()}", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found: list[dict[str, Any]] = []
    end = time.monotonic() + 30
    try:
        while time.monotonic() < end and len(found) < count:
            found += [json.loads(m.value() or b"") for m in consumer.consume(1000, 0.2) if not m.error() and m.key() == key.encode()]
    finally:
        consumer.close()
    return found


def test_a_streams_changes_are_read_under_its_key_in_order(mesh: TestMesh, customer: Customer) -> None:
    stream = f"org:{customer.org_id}"
    assert customer.patch("org", f"/orgs/{customer.org_id}", {"name": "Renamed"}).status_code == 200
    read = records(mesh, "org.changes", stream, 3)
    assert [(r["seq"], r["stream"], r["epoch"]) for r in read] == [(n, stream, 1) for n in (1, 2, 3)]
    assert [(r["table"], r["op"]) for r in read] == [("organizations", "insert"), ("memberships", "insert"), ("organizations", "update")]
    made, _, renamed = read
    assert (made["by"], made["flow_id"], made["before"]) == (f"user:{customer.user_id}", customer.flow_id, None)
    assert made["cause"].startswith(f"user/user:{customer.user_id}/1.")
    assert made["hops"] == 1
    assert (renamed["before"], renamed["after"]["name"]) == ({"name": "Acme"}, "Renamed")
    assert renamed["by"] == f"user:{customer.user_id}"


def test_change_topics_are_kept_for_seven_days(mesh: TestMesh) -> None:
    admin = mesh.mesh.broker.admin()
    resources = [ConfigResource(ResourceType.TOPIC, f"{service}.changes") for service in mesh.urls]
    for config in admin.describe_configs(resources).values():
        kept = config.result(10)
        assert int(kept["retention.ms"].value) == 7 * 24 * 3600 * 1000
        assert kept["cleanup.policy"].value == "delete"
