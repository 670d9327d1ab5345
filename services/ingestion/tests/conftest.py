"""What the tests on a real broker share: a deployment of its own for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tailrace_ingestion.settings import IngestionSettings
from tailrace_ingestion.testing import Deployment, applied
from tailrace_runtime.records import outgoing
from tailrace_runtime.topics import create_all
from tailrace_testing import Broker


@pytest.fixture
async def deployment(kafka: Broker, tmp_path: Path) -> AsyncIterator[Deployment]:
    """A deployment of its own for each test."""
    settings = IngestionSettings(
        kafka_bootstrap=kafka.bootstrap,
        topic_prefix=kafka.unique("ingestion") + "-",
        object_store=(tmp_path / "objects").as_uri(),
        state_dir=tmp_path / "state",
        port=0,
        partial_seconds=0.2,
        window_seconds=0.2,
        idle_source_seconds=30,
        archive_seconds=0.5,
    )
    await create_all(settings)
    deployment = Deployment(settings)
    await deployment.producer.start()
    await deployment.send(outgoing(applied(), "model-specs", "rain"))
    yield deployment
    await deployment.producer.stop()
