"""How the agent's Kafka clients sign in."""

from typing import Any

from aiokafka.helpers import create_ssl_context

from services.agent.settings import Settings


def access(settings: Settings) -> dict[str, Any]:
    """Keyword arguments that every aiokafka client takes."""
    encrypted = settings.kafka_security_protocol == "SASL_SSL"
    return {
        "bootstrap_servers": settings.kafka_bootstrap,
        "client_id": f"agent-{settings.data_plane_id}",
        "security_protocol": settings.kafka_security_protocol,
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_plain_username": settings.kafka_username,
        "sasl_plain_password": settings.kafka_password.get_secret_value(),
        "request_timeout_ms": 10_000,
        **({"ssl_context": create_ssl_context()} if encrypted else {}),
    }
