"""The archive: what is written can be read back by its offsets, and nothing is committed before it is written."""

from pathlib import Path
from typing import Any

import pytest

from tailrace_contracts.ranges import Log, LogRange
from tailrace_ingestion.adapters.parquet import to_parquet
from tailrace_ingestion.consumers import Archiving
from tailrace_ingestion.ports import Objects
from tailrace_ingestion.testing import MemoryObjects
from tailrace_runtime.errors import RetryLater
from tailrace_runtime.log import archived_run
from tailrace_runtime.metrics import Instrument, Metrics
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.records import Record

LOG = Log("predictions", 2)


def records(first: int, through: int, size: int = 10) -> list[Record]:
    """Records of these offsets."""
    return [Record(*LOG, at, 1000 + at, b"k%d" % at, b"v" * size, ()) for at in range(first, through + 1)]


def archiving(objects: Objects, **limits: Any) -> Archiving:
    """The role with a clock that the test moves."""
    metrics = Metrics("ingestion", [Instrument("tailrace_archived_total", "counter", "archived", ("topic",))])
    return Archiving(objects, to_parquet, metrics, **{"max_bytes": 1000, "max_seconds": 30.0} | limits)


class Moments:
    """A clock in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The present moment."""
        return self.now


async def test_small_batches_wait_and_are_written_together() -> None:
    """The object store would fill with tiny files, or records be committed before they are safe."""
    objects, clock = MemoryObjects(), Moments()
    role = archiving(objects, monotonic=clock)
    assert (await role.records(records(5, 6))).commit_through == -1
    clock.now = 29.0
    assert (await role.records(records(7, 9))).commit_through == -1
    assert await role.tick() == {}
    clock.now = 30.0
    assert {log: outcome.commit_through for log, outcome in (await role.tick()).items()} == {LOG: 9}
    (key,) = objects.objects
    assert archived_run(key) == LogRange(topic="predictions", partition=2, from_offset=5, through_offset=9)


async def test_a_full_file_is_written_at_once() -> None:
    """A burst would pile up in memory for half a minute."""
    objects = MemoryObjects()
    role = archiving(objects)
    assert (await role.records(records(0, 99))).commit_through == 99
    assert len(objects.objects) == 1


async def test_an_object_store_that_is_away_loses_and_doubles_nothing() -> None:
    """A file would miss records, or hold the batch that was tried again twice."""

    class Away(MemoryObjects):
        """Fails once."""

        def __init__(self) -> None:
            super().__init__()
            self.fails = 1

        async def put(self, key: str, data: bytes) -> None:
            """Fail, then store."""
            self.fails -= 1
            if self.fails >= 0:
                raise RetryLater("away")
            await super().put(key, data)

    objects = Away()
    role = archiving(objects)
    with pytest.raises(RetryLater):
        await role.records(records(0, 99))
    assert (await role.records(records(0, 99))).commit_through == 99
    (key,) = objects.objects
    assert archived_run(key) == LogRange(topic="predictions", partition=2, from_offset=0, through_offset=99)
    assert objects.objects[key] == to_parquet(records(0, 99))


async def test_partitions_that_are_gone_are_forgotten() -> None:
    """Records of a partition that another process has now would be written, and its offsets be committed, twice."""
    role = archiving(MemoryObjects(), max_seconds=0.0)
    await role.records(records(0, 3))
    await role.revoked({LOG})
    assert await role.tick() == {}


@pytest.fixture(params=["folder", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """The real object store and the fake."""
    return ObjectStore.from_url(tmp_path.as_uri()) if request.param == "folder" else MemoryObjects()


async def test_objects_take_bytes_and_take_them_again(objects: Objects) -> None:
    """A file that was written twice, after a crash, would be refused."""
    await objects.put("archive/a/0/x.parquet", b"1")
    await objects.put("archive/a/0/x.parquet", b"2")
    kept = objects.objects["archive/a/0/x.parquet"] if isinstance(objects, MemoryObjects) else None
    found = (
        kept or await ObjectStore.get(objects, "archive/a/0/x.parquet") if isinstance(objects, ObjectStore) else kept
    )
    assert found == b"2"
