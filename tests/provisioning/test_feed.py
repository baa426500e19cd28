"""The feed of a tenant, as any Kafka client reads it."""

import json
import time
import uuid
from typing import Any

from confluent_kafka import Consumer
from confluent_kafka.admin import ConfigResource, ResourceType

from tests.mesh import TestMesh
from tests.provisioning.conftest import Home


def newest(mesh: TestMesh, topic: str) -> dict[str, Any]:
    """The newest value of every key of a topic with one partition; None for a tombstone."""
    consumer = Consumer({**mesh.mesh.broker.client(), "group.id": f"test {uuid.uuid4()}", "auto.offset.reset": "earliest", "enable.partition.eof": True})
    consumer.subscribe([topic])
    found: dict[str, Any] = {}
    end = time.monotonic() + 20
    try:
        while time.monotonic() < end:
            message = consumer.poll(0.2)
            if message is None:
                continue
            if message.error():  # the end of the partition
                return found
            value = message.value()
            found[(message.key() or b"").decode()] = json.loads(value) if value is not None else None
    finally:
        consumer.close()
    raise AssertionError(f"{topic} could not be read to its end")


def test_a_tenants_feed_says_what_is_wanted_and_a_tombstone_what_is_not_any_more(home: Home, mesh: TestMesh) -> None:
    topic, org, database = f"tenant.{home.org_id}.feed", f"{home.org_id}/{home.org_id}", f"{home.org_id}/{home.id}"
    feed = newest(mesh, topic)
    assert feed.keys() == {org, database}
    for key, value in feed.items():
        assert value.keys() >= {"org_id", "resource", "kind", "generation", "desired"}
        assert key == f"{value['org_id']}/{value['resource']}"
    assert (feed[org]["kind"], feed[org]["desired"]) == ("organization", {"state": "active"})
    assert feed[database]["kind"] == "database"
    assert feed[database]["desired"] == {"name": home.database()["dbname"], "state": "present", "connection_limit": 20}
    before = feed[database]["generation"]

    assert home.owner.delete("provisioning", home.path).status_code == 202
    home.becomes("deleted")
    closed = newest(mesh, topic)[database]
    assert (closed["desired"]["state"], closed["generation"]) == ("deleted", before + 1)
    home.advance(days=2)
    home.becomes("gone")
    assert newest(mesh, topic)[database] is None


def test_a_tenants_feed_has_one_partition_and_is_compacted(home: Home, mesh: TestMesh) -> None:
    admin, topic = mesh.mesh.broker.admin(), f"tenant.{home.org_id}.feed"
    assert len(admin.list_topics(topic, timeout=10).topics[topic].partitions) == 1
    resource = ConfigResource(ResourceType.TOPIC, topic)
    config = admin.describe_configs([resource])[resource].result(10)
    assert config["cleanup.policy"].value == "compact"
