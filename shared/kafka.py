"""Kafka's administration, as the service's own user."""

from confluent_kafka.admin import AdminClient

from shared.settings import Settings


def administrator(settings: Settings, service: str) -> AdminClient:
    """A client that connects when it is first used; it keeps trying while no broker answers."""
    return AdminClient(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "client.id": f"mesh-{service}",
            "security.protocol": settings.kafka_security_protocol,
            "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": settings.kafka_username,
            "sasl.password": settings.kafka_password.get_secret_value(),
            "reconnect.backoff.max.ms": 1000,
            "log_level": 0,
        }
    )
