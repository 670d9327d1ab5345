"""The stores that a watch is tested on."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
from pytest import FixtureRequest  # noqa: PT013  # the type of the fixture below

from tailrace_monitoring.adapters.postgres_watches import PostgresWatches
from tailrace_monitoring.adapters.river_detectors import detector
from tailrace_monitoring.domain.state import Tools
from tailrace_monitoring.main import TOPICS_OUT
from tailrace_monitoring.testing import MemoryWatches, Stored
from tailrace_runtime.database import Database
from tailrace_statistics.columns import merge


@pytest.fixture(params=["memory", "postgres"])
async def stored(request: FixtureRequest) -> AsyncIterator[Stored]:
    """Each store, with real detectors and distances, and identifiers that differ."""
    numbers = itertools.count()
    tools = Tools(detector, merge, lambda: f"id-{next(numbers)}")
    if request.param == "memory":
        yield Stored(MemoryWatches(tools))
        return
    opened = Database(request.getfixturevalue("database"), "tailrace_monitoring")
    await opened.start()
    yield Stored(PostgresWatches(opened, tools, TOPICS_OUT), opened)
    await opened.stop()
