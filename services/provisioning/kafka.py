"""Kafka's administration: topics and rights, as this service's own user."""

import asyncio
from concurrent.futures import Future
from functools import cache
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, AdminClient, NewTopic, ResourcePatternType, ResourceType

from schemas.feed import COMPACTED
from shared.kafka import administrator
from shared.settings import settings

TIMEOUT = 10


async def make_feed(topic: str, reader: str) -> None:
    """Makes a feed's topic with its one partition and lets a user read it. What is there already stays.

    Raises ``KafkaException``; safe to repeat.
    """
    rights = [
        AclBinding(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{reader}", "*", operation, AclPermissionType.ALLOW)
        for operation in (AclOperation.READ, AclOperation.DESCRIBE)
    ]
    client = await asyncio.to_thread(_client)
    made = client.create_topics([NewTopic(topic, 1, config=COMPACTED)], operation_timeout=TIMEOUT, request_timeout=TIMEOUT)
    allowed = client.create_acls(rights, request_timeout=TIMEOUT)
    await asyncio.gather(*(_settled(future) for future in (*made.values(), *allowed.values())))


async def keep_connected() -> None:
    """Answers when a broker does. A connection that is there saves the first sign-up its handshakes."""
    client = await asyncio.to_thread(_client)
    await asyncio.to_thread(client.list_topics, topic="tenant.", timeout=TIMEOUT)


async def _settled(future: "Future[Any]") -> None:
    try:
        await asyncio.wrap_future(future)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


@cache
def _client() -> AdminClient:
    return administrator(settings(), "provisioning")
