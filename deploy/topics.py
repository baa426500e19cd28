"""What exists in Kafka before anybody uses it: topics, users and who may do what."""

import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from deploy.kafka import Broker
from deploy.plan import SERVICES, Plan
from schemas.feed import COMPACTED, agent_user

_WEEK_MS = str(7 * 24 * 3600 * 1000)
_VISIBLE_WITHIN = 15.0  # seconds

Grant = tuple[str, ResourceType, str, ResourcePatternType, AclOperation]
_LITERAL, _PREFIXED = ResourcePatternType.LITERAL, ResourcePatternType.PREFIXED
_TOPIC, _GROUP = ResourceType.TOPIC, ResourceType.GROUP


def topics(plan: Plan) -> list[NewTopic]:
    """Tenant feeds are not among them: provisioning makes each before anything is said in it."""
    changes = [NewTopic(f"{service}.changes", plan.partitions, 1, config={"retention.ms": _WEEK_MS}) for service in SERVICES]
    assignments = [NewTopic(f"dataplane.{plane}.assignments", 1, 1, config=COMPACTED) for plane in plan.data_planes]
    reports = [NewTopic(f"dataplane.{plane}.reports", 1, 1, config={"retention.ms": _WEEK_MS}) for plane in plan.data_planes]
    return [*changes, *assignments, *reports]


def users(plan: Plan) -> list[str]:
    return ["connect", *SERVICES, *(agent_user(plane) for plane in plan.data_planes)]


def grants(plan: Plan) -> list[Grant]:
    """Everybody's rights. A prefix ends in a delimiter, or tenant 1 would read tenant 10."""
    return [
        *(grant for service in SERVICES for grant in _service_grants(service)),
        *_provisioning_grants(plan),
        *(grant for plane in plan.data_planes for grant in _agent_grants(plane)),
        *_connect_grants(plan),
    ]


def _service_grants(service: str) -> Iterable[Grant]:
    for source in SERVICES:
        yield from _may(service, _TOPIC, f"{source}.changes", _LITERAL, AclOperation.READ, AclOperation.DESCRIBE)
    yield from _may(service, _GROUP, service, _LITERAL, AclOperation.READ, AclOperation.DESCRIBE)
    yield from _may(service, _GROUP, f"{service}.", _PREFIXED, AclOperation.READ, AclOperation.DESCRIBE)


def _provisioning_grants(plan: Plan) -> Iterable[Grant]:
    """It hears the agents, and makes topics and rights for the tenants it places."""
    for plane in plan.data_planes:
        yield from _may("provisioning", _TOPIC, f"dataplane.{plane}.reports", _LITERAL, AclOperation.READ, AclOperation.DESCRIBE)
    for prefix in ("tenant.", "pool."):
        yield from _may("provisioning", _TOPIC, prefix, _PREFIXED, AclOperation.CREATE, AclOperation.DESCRIBE)
    cluster = ResourceType.BROKER  # librdkafka's word for the cluster
    yield from _may("provisioning", cluster, "kafka-cluster", _LITERAL, AclOperation.ALTER, AclOperation.DESCRIBE)


def _agent_grants(plane: str) -> Iterable[Grant]:
    """Its tenants' topics come later, one by one, from provisioning."""
    user = agent_user(plane)
    yield from _may(user, _TOPIC, f"dataplane.{plane}.assignments", _LITERAL, AclOperation.READ, AclOperation.DESCRIBE)
    yield from _may(user, _TOPIC, f"dataplane.{plane}.reports", _LITERAL, AclOperation.WRITE, AclOperation.DESCRIBE)
    yield from _may(user, _GROUP, user, _LITERAL, AclOperation.READ, AclOperation.DESCRIBE)


def _connect_grants(plan: Plan) -> Iterable[Grant]:
    """Its own topics wholly; the mesh's to write, and to create where they are made on first use."""
    write = (AclOperation.WRITE, AclOperation.DESCRIBE)
    for service in SERVICES:
        yield from _may("connect", _TOPIC, f"{service}.changes", _LITERAL, *write)
    for plane in plan.data_planes:
        yield from _may("connect", _TOPIC, f"dataplane.{plane}.assignments", _LITERAL, *write)
    for prefix in ("tenant.", "pool.", "__debezium-heartbeat."):
        yield from _may("connect", _TOPIC, prefix, _PREFIXED, *write, AclOperation.CREATE)
    yield from _may("connect", _TOPIC, "_connect_", _PREFIXED, *write, AclOperation.CREATE, AclOperation.READ, AclOperation.DESCRIBE_CONFIGS)
    yield from _may("connect", _GROUP, "connect", _LITERAL, AclOperation.READ, AclOperation.DESCRIBE)


def _may(user: str, kind: ResourceType, name: str, pattern: ResourcePatternType, *operations: AclOperation) -> Iterable[Grant]:
    return ((user, kind, name, pattern, operation) for operation in operations)


def ensure_topics(admin: AdminClient, plan: Plan) -> str:
    """Make the topics that are missing; in words, what was made. What exists stays as it is."""
    present = set(admin.list_topics(timeout=10).topics)
    missing = [topic for topic in topics(plan) if topic.topic not in present]
    if missing:
        _await(admin.create_topics(missing))
    return ", ".join(topic.topic for topic in missing)


def ensure_users(admin: AdminClient, broker: Broker, plan: Plan) -> str:
    """Make the users and rights that are missing; in words, what was made. What exists stays as it is."""
    present = set(_result(admin.describe_user_scram_credentials()))
    missing = [user for user in users(plan) if user not in present]
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
    if missing:
        made = [UserScramCredentialUpsertion(user, info, broker.password(user).encode()) for user in missing]
        _await(admin.alter_user_scram_credentials(made))  # type: ignore[arg-type]
    granted = _ensure_grants(admin, plan)
    return ", ".join([*missing, *([f"{granted} rights"] if granted else [])])


def _ensure_grants(admin: AdminClient, plan: Plan) -> int:
    missing = _missing_grants(admin, plan)
    if missing:
        _await(admin.create_acls(missing))
    deadline = time.monotonic() + _VISIBLE_WITHIN
    while missing and _missing_grants(admin, plan) and time.monotonic() < deadline:
        time.sleep(0.05)  # the controller has them; the broker, which judges by them, may be behind
    return len(missing)


def _missing_grants(admin: AdminClient, plan: Plan) -> list[AclBinding]:
    everything = AclBindingFilter(ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY)  # type: ignore[arg-type]
    present = set(admin.describe_acls(everything).result(timeout=10))
    wanted = [AclBinding(kind, name, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW) for user, kind, name, pattern, operation in grants(plan)]
    return [binding for binding in wanted if binding not in present]


def _result(future: Any) -> Any:
    """Of a call whose declared type is wider than what it gives."""
    return future.result(timeout=10)


def _await(futures: dict[Any, Future[Any]]) -> None:
    for future in futures.values():
        try:
            future.result(timeout=15)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
