"""The archive: what is written can be read back by its offsets, and nothing is committed before it is written."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace_contracts.ranges import Log, LogRange
from tailrace_ingestion.adapters.parquet import merge
from tailrace_ingestion.app import INSTRUMENTS
from tailrace_ingestion.consumers import Archiving, Compacting
from tailrace_ingestion.domain.compaction import Stored, next_merge
from tailrace_ingestion.ports import Objects
from tailrace_ingestion.testing import MemoryObjects
from tailrace_runtime.archive import ArchiveFile, archive_key, archived_run, to_parquet
from tailrace_runtime.errors import RetryLater
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.records import Record
from tailrace_testing import eventually

LOG = Log("predictions", 2)


def records(first: int, through: int, size: int = 10) -> list[Record]:
    """Records of these offsets."""
    return [Record(*LOG, at, 1000 + at, b"k%d" % at, b"v" * size, ()) for at in range(first, through + 1)]


def archiving(objects: Objects, **limits: Any) -> Archiving:
    """The role with a clock that the test moves, and no merging."""
    metrics = Metrics("ingestion", INSTRUMENTS)
    compacting = Compacting(objects, no_merge, metrics, target_bytes=1, at_least=2)
    return Archiving(objects, to_parquet, metrics, compacting, **{"max_bytes": 1000, "max_seconds": 30.0} | limits)


async def no_merge(parts: Sequence[LogRange]) -> LogRange:
    """Nothing is ever merged into files of one byte."""
    raise AssertionError(parts)


def merging(objects: ObjectStore, *, target_bytes: int = 1_000_000, at_least: int = 3) -> Compacting:
    """Merging as the role does it."""
    metrics = Metrics("ingestion", INSTRUMENTS)
    return Compacting(objects, partial(merge, objects), metrics, target_bytes=target_bytes, at_least=at_least)


async def stored(objects: ObjectStore, *runs: tuple[int, int]) -> None:
    """Archive files of these runs."""
    for first, through in runs:
        await objects.put(archive_key(run(first, through)), to_parquet(records(first, through)))


def run(first: int, through: int) -> LogRange:
    """A run of the log."""
    return LogRange(topic=LOG.topic, partition=LOG.partition, from_offset=first, through_offset=through)


async def runs(objects: ObjectStore) -> list[tuple[int, int]]:
    """What files there are."""
    found = [archived_run(key) for key in await objects.list("archive")]
    return [(each.from_offset, each.through_offset) for each in found if each is not None]


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


async def test_a_gap_in_the_offsets_ends_a_file() -> None:
    """A file would claim records that retention took away before they could be archived."""
    objects = MemoryObjects()
    role = archiving(objects, max_seconds=0.0)
    await role.records([*records(0, 3), *records(7, 9)])
    assert {log: outcome.commit_through for log, outcome in (await role.tick()).items()} == {LOG: 9}
    found = [archived_run(key) for key in sorted(objects.objects)]
    assert found == [run(0, 3), run(7, 9)]


async def test_small_files_are_merged_into_one_with_every_record(objects_on_disk: ObjectStore) -> None:
    """The archive would be a heap of files of half a minute each, slow to list and slow to query."""
    await stored(objects_on_disk, *((n, n + 9) for n in range(0, 100, 10)))
    await merging(objects_on_disk).compact(LOG)
    assert await runs(objects_on_disk) == [(0, 99)]
    batches = ArchiveFile(objects_on_disk, run(0, 99)).batches(run(0, 99))
    assert [record for batch in batches for record in batch] == records(0, 99)


async def test_killed_between_merging_and_removing(objects_on_disk: ObjectStore) -> None:
    """A record would come twice, or the parts of a merge lie about for ever."""
    await stored(objects_on_disk, (0, 9), (10, 19), (0, 19), (15, 29), (30, 30))
    await merging(objects_on_disk, at_least=2).compact(LOG)
    assert await runs(objects_on_disk) == [(0, 30)]
    batches = ArchiveFile(objects_on_disk, run(0, 30)).batches(run(0, 30))
    assert [record for batch in batches for record in batch] == records(0, 30)


async def test_merging_stops_at_a_gap_and_at_the_target(objects_on_disk: ObjectStore) -> None:
    """A merged file would claim lost records, or grow without end."""
    await stored(objects_on_disk, (0, 9), (10, 19), (25, 29), (30, 39))
    await merging(objects_on_disk, at_least=2).compact(LOG)
    assert await runs(objects_on_disk) == [(0, 19), (25, 39)]
    size = (await objects_on_disk.sizes("archive"))[archive_key(run(0, 19))]
    await stored(objects_on_disk, (40, 49), (50, 59))
    await merging(objects_on_disk, target_bytes=size, at_least=2).compact(LOG)
    assert await runs(objects_on_disk) == [(0, 19), (25, 49), (50, 59)]


async def test_a_damaged_file_stops_the_merging_of_its_log_and_nothing_else(objects_on_disk: ObjectStore) -> None:
    """One bad file would stop the archive, or its records be dropped without a word."""
    await stored(objects_on_disk, (0, 9), (20, 29))
    await objects_on_disk.put(archive_key(run(10, 19)), b"junk")
    metrics = Metrics("ingestion", INSTRUMENTS)
    merger = partial(merge, objects_on_disk)
    compacting = Compacting(objects_on_disk, merger, metrics, target_bytes=1_000_000, at_least=3)
    compacting.assigned({LOG})

    def damaged() -> bool:
        compacting.go_on()
        return metrics.value("tailrace_archive_damaged_total", topic=LOG.topic) == 1

    await eventually(damaged)
    assert await runs(objects_on_disk) == [(0, 9), (10, 19), (20, 29)]


async def test_a_log_that_is_gone_is_left_alone(objects_on_disk: ObjectStore) -> None:
    """Two processes would go on merging the same files after a rebalance."""
    await stored(objects_on_disk, (0, 9), (10, 19), (20, 29))
    compacting = merging(objects_on_disk)
    compacting.assigned({LOG})
    compacting.go_on()
    await compacting.revoked({LOG})
    compacting.go_on()
    assert await runs(objects_on_disk) == [(0, 9), (10, 19), (20, 29)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=400), st.integers(2, 10))
def test_files_stay_few_and_are_rewritten_seldom(sizes: list[int], at_least: int) -> None:
    """An archive would keep thousands of small files, or write every record again with every merge."""
    target, files, rewritten, offset = 2_000, list[Stored](), 0, 0
    for size in sizes:
        files.append(Stored(run(offset, offset + size - 1), size))
        offset += size
        while parts := next_merge(files, target, at_least):
            merged = sum(file.size_bytes for file in files if file.run in parts)
            rewritten += merged
            kept = [file for file in files if file.run not in parts]
            files = [*kept, Stored(run(parts[0].from_offset, parts[-1].through_offset), merged)]
            files.sort(key=lambda file: file.run.from_offset)
    assert sum(file.size_bytes for file in files) == offset
    assert [file.run.from_offset for file in files[1:]] == [file.run.through_offset + 1 for file in files[:-1]]
    assert all(file.size_bytes <= 2 * target for file in files)
    assert sum(file.size_bytes < target for file in files) <= at_least + 12
    assert rewritten <= 14 * offset


async def test_partitions_that_are_gone_are_forgotten() -> None:
    """Records of a partition that another process has now would be written, and its offsets be committed, twice."""
    role = archiving(MemoryObjects(), max_seconds=0.0)
    await role.records(records(0, 3))
    await role.revoked({LOG})
    assert await role.tick() == {}


@pytest.fixture
def objects_on_disk(tmp_path: Path) -> ObjectStore:
    """A folder as object store."""
    return ObjectStore.from_url(tmp_path.as_uri())


@pytest.fixture(params=["folder", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """The real object store and the fake."""
    return ObjectStore.from_url(tmp_path.as_uri()) if request.param == "folder" else MemoryObjects()


async def test_objects_take_bytes_again_and_let_go_of_them(objects: Objects) -> None:
    """A file that was written twice, after a crash, would be refused; a merged part could not be removed twice."""
    await objects.put("archive/a/0/x.parquet", b"1")
    await objects.put("archive/a/0/x.parquet", b"22")
    await objects.put("archive/a/01/y.parquet", b"333")
    assert await objects.sizes("archive/a/0") == {"archive/a/0/x.parquet": 2}
    for _ in range(2):
        await objects.delete("archive/a/0/x.parquet")
    assert await objects.sizes("archive/a/0") == {}
