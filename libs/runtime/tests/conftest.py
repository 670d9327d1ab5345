"""What the runtime's tests share: a deployment of its own for each test, on the session's broker."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tailrace_runtime.settings import ServiceSettings
from tailrace_runtime.topics import create_all
from tailrace_testing.broker import Broker

Deployment = Callable[..., Awaitable[ServiceSettings]]


@pytest.fixture
def settings(kafka: Broker, tmp_path: Path) -> ServiceSettings:
    """Settings with a topic prefix that no other test has; no topic exists yet."""
    return ServiceSettings(
        kafka_bootstrap=kafka.bootstrap,
        topic_prefix=kafka.unique("t") + "-",
        object_store=(tmp_path / "objects").as_uri(),
        state_dir=tmp_path / "state",
        port=0,
    )


@pytest.fixture
def deployment(settings: ServiceSettings) -> Deployment:
    """Creates the named topics of the catalogue under the test's prefix, and gives the settings to reach them."""

    async def create(*topics: str) -> ServiceSettings:
        await create_all(settings, topics or None)
        return settings

    return create
