"""How the clients of this library connect: one place for addresses, security and time limits."""

from __future__ import annotations

from typing import Any

from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError
from aiokafka.helpers import create_ssl_context

from tailrace_runtime.settings import KafkaSettings

UNREACHABLE: tuple[type[BaseException], ...] = (KafkaConnectionError, KafkaTimeoutError, KafkaError, OSError)


def connection(settings: KafkaSettings) -> dict[str, Any]:
    """The arguments that every aiokafka client of this deployment shares."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap,
        "security_protocol": settings.kafka_security_protocol,
        "request_timeout_ms": int(settings.request_timeout_seconds * 1000),
    }
    if settings.kafka_security_protocol.endswith("SSL"):
        ca_file = settings.kafka_ca_file
        arguments["ssl_context"] = create_ssl_context(cafile=str(ca_file) if ca_file else None)
    if settings.kafka_security_protocol.startswith("SASL"):
        password = settings.kafka_password
        arguments["sasl_mechanism"] = settings.kafka_sasl_mechanism
        arguments["sasl_plain_username"] = settings.kafka_username
        arguments["sasl_plain_password"] = password.get_secret_value() if password else None
    return arguments


def unreachable(settings: KafkaSettings) -> str:
    """The sentence for a broker that does not answer."""
    return f"Kafka at {settings.kafka_bootstrap} does not answer (TAILRACE_KAFKA_BOOTSTRAP)"
