"""How the clients of this library connect: one place for addresses, security and time limits."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError
from aiokafka.helpers import create_ssl_context

from tailrace_runtime.settings import KafkaSettings

log = structlog.get_logger(__name__)

_CLOSE_SECONDS = 10.0

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


async def close(consumer: Any) -> None:
    """Close a consumer, whatever state its broker is in.

    aiokafka 0.14 stumbles over its own cancelled fetches when the broker is away, and leaves connections open; so its
    fetches are ended here first.
    """
    fetcher = consumer._fetcher  # noqa: SLF001
    if fetcher is not None:
        fetches = [fetcher._fetch_task, *fetcher._pending_tasks]  # noqa: SLF001
        for fetch in fetches:
            fetch.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)
        fetcher._pending_tasks.clear()  # noqa: SLF001
    try:
        await asyncio.wait_for(consumer.stop(), _CLOSE_SECONDS)
    except (TimeoutError, KafkaError) as error:
        log.info("a consumer closed with an error", error=repr(error))
        await consumer._client.close()  # noqa: SLF001


def knows_its_coordinator(consumer: Any) -> bool:
    """Whether the group's coordinator answers, as far as the last heartbeat tells. Reaches into aiokafka 0.14."""
    return consumer._coordinator.coordinator_id is not None  # noqa: SLF001


def member_id(consumer: Any) -> str:
    """The id that the group's coordinator gave to this member. Reaches into aiokafka 0.14."""
    return str(consumer._coordinator.member_id)  # noqa: SLF001
