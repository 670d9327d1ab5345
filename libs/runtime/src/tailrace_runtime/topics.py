"""Topics on the broker: creating the catalogue's, and finding out which are there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from tailrace_contracts.catalogue import Topic, topics
from tailrace_runtime.errors import TailraceError
from tailrace_runtime.kafka import UNREACHABLE, connection, unreachable
from tailrace_runtime.settings import KafkaSettings
from tailrace_runtime.waiting import until_available

log = structlog.get_logger(__name__)

_SPREADING_SECONDS = 0.05


class TopicsMissing(TailraceError):  # noqa: N818  # it says what is so, and is waited for
    """Topics that a role reads are not on the broker."""


async def create_all(settings: KafkaSettings, names: Iterable[str] | None = None) -> tuple[str, ...]:
    """Create the catalogue's topics (or those named) that do not exist yet; gives back the names of the new ones.

    Waits for a broker that is not there yet, and returns once every topic can be written to.
    """
    cards = [card for card in topics().values() if names is None or card.name in set(names)]

    async def attempt() -> tuple[str, ...]:
        async with _admin(settings) as admin:
            created = await _create(admin, settings, cards)
            await _until_led(admin, {settings.topic(card.name) for card in cards})
            return created

    return await until_available("topics", unreachable(settings), attempt, UNREACHABLE)


async def _create(admin: Any, settings: KafkaSettings, cards: list[Topic]) -> tuple[str, ...]:
    response = await admin.create_topics([_new_topic(settings, card) for card in cards])
    created = []
    for name, code, *_ in response.topic_errors:
        error = for_code(code)
        if error.errno == 0:
            created.append(settings.name(name))
        elif error is not TopicAlreadyExistsError:
            raise error(f"topic {name} could not be created")
    if created:
        log.info("topics created", topics=created)
    return tuple(created)


async def _until_led(admin: Any, names: set[str]) -> None:
    """Return once each partition has a leader: a broker answers before it has spread the news."""
    while True:
        found = {each["topic"]: each["partitions"] for each in await admin.describe_topics()}
        partitions = [partition for name in names for partition in found.get(name, [])]
        if names <= found.keys() and all(partition["leader"] >= 0 for partition in partitions):
            return
        await asyncio.sleep(_SPREADING_SECONDS)


def _new_topic(settings: KafkaSettings, card: Topic) -> NewTopic:
    return NewTopic(
        name=settings.topic(card.name),
        num_partitions=card.partitions,
        replication_factor=settings.replication_factor,
        topic_configs=card.config(),
    )


async def existing(settings: KafkaSettings) -> dict[str, int]:
    """The topics of this deployment that are on the broker, without the prefix, and their numbers of partitions."""
    async with _admin(settings) as admin:
        found = await admin.describe_topics()  # all of them: asking by name could create what is missing
    return {
        settings.name(each["topic"]): len(each["partitions"])
        for each in found
        if each["topic"].startswith(settings.topic_prefix)
    }


async def wait_for(settings: KafkaSettings, names: Iterable[str], *, part: str) -> dict[str, int]:
    """The topics' numbers of partitions, once all exist; meanwhile `/readyz` and the log say which are missing."""
    wanted = frozenset(names)

    async def attempt() -> dict[str, int]:
        found = await existing(settings)
        missing = sorted(wanted - found.keys())
        if missing:
            what = ", ".join(settings.topic(name) for name in missing)
            raise TopicsMissing(
                f"these topics do not exist yet: {what}; create them with `tailrace up` or your own tools"
            )
        return {name: found[name] for name in wanted}

    reason = f"waiting for topics on Kafka at {settings.kafka_bootstrap}"
    return await until_available(part, reason, attempt, (TopicsMissing, *UNREACHABLE))


@asynccontextmanager
async def _admin(settings: KafkaSettings) -> AsyncIterator[Any]:
    admin = AIOKafkaAdminClient(**connection(settings))
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()
