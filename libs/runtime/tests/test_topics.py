"""Creating the catalogue's topics on a real broker."""

import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tailrace_contracts.catalogue import topics
from tailrace_runtime.settings import ServiceSettings
from tailrace_runtime.topics import create_all, existing


async def test_all_topics_are_created_once_as_their_cards_say(settings: ServiceSettings) -> None:
    """A deployment would lack a topic, or `up` would fail the second time."""
    first, second = await asyncio.gather(create_all(settings), create_all(settings))
    assert sorted(first + second) == sorted(topics())
    assert await create_all(settings) == ()
    assert await existing(settings) == {name: card.partitions for name, card in topics().items()}


@pytest.mark.parametrize("name", ["deployments", "dead-letters", "window-partials"])
async def test_a_topics_retention_is_its_cards(settings: ServiceSettings, name: str) -> None:
    """A compacted topic would forget its models after a week, or the dead letters would be kept for ever."""
    await create_all(settings, [name])
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, settings.topic(name))])
    await admin.close()
    found = {entry[0]: entry[1] for entry in answer.resources[0][4]}
    assert topics()[name].config().items() <= found.items()
