"""What the stream framework drops is taken from the topic, and its commits go on behind it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

from tailrace_contracts.ranges import LogRange
from tailrace_ingestion.adapters.faust_app import Application
from tailrace_ingestion.adapters.faust_role import FaustAggregation
from tailrace_ingestion.settings import IngestionSettings
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.records import Record
from tailrace_runtime.testing import RecordingProducer

TOPIC = "window-partials"


class Gaps(list[tuple[int, int]]):
    """An interval tree, as far as it is written to."""

    def addi(self, begin: int, end: int) -> None:
        """A gap from `begin` to before `end`."""
        self.append((begin, end))

    def merge_overlaps(self) -> None:
        """Nothing overlaps here."""


class Handed:
    """A stream that hands over these offsets of partition 0."""

    def __init__(self, *offsets: int) -> None:
        self._offsets = offsets

    def noack(self) -> Handed:
        """The same."""
        return self

    async def events(self) -> AsyncIterator[Any]:
        """An event for each offset."""
        for offset in self._offsets:
            message = SimpleNamespace(
                partition=0, offset=offset, timestamp=0.0, key=b"k", value=b"v", headers=(), tp=("t", 0)
            )
            yield SimpleNamespace(message=message)


class Role:
    """The role over a topic from which compaction has taken the offsets 0 and 7."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.read: list[str] = []
        self.while_reading: Any = None
        self.committed: dict[Any, int] = {}
        self.gaps: dict[Any, Gaps] = defaultdict(Gaps)
        self.role = FaustAggregation(
            IngestionSettings(),
            SimpleNamespace(rebuild=None, due=list),
            TOPIC,
            lambda record, _: self.taken.append(record.offset),
            publisher=RecordingProducer(),
            metrics=Metrics("ingestion"),
            settle_seconds=1.0,
            read=self._records,
        )
        self.role._recovered = True
        self.role._faust = Application(
            SimpleNamespace(consumer=SimpleNamespace(_gap=self.gaps, _committed_offset=self.committed)), {}
        )

    async def _records(self, missed: LogRange) -> AsyncIterator[Sequence[Record]]:
        self.read.append(str(missed))
        if self.while_reading is not None:
            await self.while_reading(None, set())
        offsets = [at for at in range(missed.from_offset, missed.through_offset + 1) if at not in (0, 7)]
        yield [Record(TOPIC, 0, at, 0, b"k", b"v", ()) for at in offsets]


async def test_a_record_that_is_not_handed_over_is_read_and_taken_in_its_place() -> None:
    """A rebalance would leave the events of a partial out of their window for good."""
    world = Role()
    world.committed["t", 0] = 3
    await world.role._agent(Handed(3, 4, 6, 8, 9))
    assert world.taken == [3, 4, 5, 6, 8, 9]
    assert world.read == ["window-partials[0]@5..5", "window-partials[0]@7..7"]
    for event in world.role._unsettled.events:
        if hasattr(event, "ack"):
            event.ack()
    assert world.gaps[("t", 0)] == [(5, 6), (7, 8)]


async def test_the_first_record_after_a_start_may_be_missing_too() -> None:
    """A role that begins in a rebalance would never commit again."""
    world = Role()
    world.committed["t", 0] = 2
    await world.role._agent(Handed(4, 5))
    assert world.taken == [2, 3, 4, 5]


async def test_what_is_handed_over_again_is_no_gap() -> None:
    """After every rebalance the role would read the topic from where it had been."""
    world = Role()
    world.committed["t", 0] = 3
    await world.role._agent(Handed(3, 4, 5, 3, 4, 5, 6))
    assert (world.taken, world.read) == ([3, 4, 5, 3, 4, 5, 6], [])


async def test_a_group_that_never_committed_begins_with_the_log() -> None:
    """The first partial of all would be lost; and what retention took before would be counted up as done, one by one."""
    world = Role()
    await world.role._agent(Handed(3, 4))
    assert world.taken == [1, 2, 3, 4]
    assert all(hasattr(event, "message") for event in world.role._unsettled.events)


async def test_what_is_shared_out_anew_while_the_missed_are_read_is_left_to_its_new_owner() -> None:
    """A process that has lost the partition would write an older partial over the new owner's."""
    world = Role()
    world.committed["t", 0] = 3
    world.while_reading = world.role._note_assignment
    await world.role._agent(Handed(5))
    assert (world.taken, world.role._unsettled.events) == ([], [])


async def test_where_nothing_is_known_a_few_records_are_read() -> None:
    """The whole topic, a week of it, would be read into memory whenever a rebalance came at a bad time."""
    world = Role()
    await world.role._agent(Handed(5_000))
    assert world.taken == list(range(4_900, 5_001))


async def test_after_a_rebalance_a_partition_begins_where_it_was_committed() -> None:
    """What another process has done meanwhile would be read and folded again; what this one had in hand be lost."""
    world = Role()
    world.committed["t", 0] = 3
    await world.role._agent(Handed(3, 4))
    world.committed["t", 0] = 40
    await world.role._note_assignment(None, set())
    world.role._recovered = True
    await world.role._agent(Handed(42))
    assert world.taken == [3, 4, 40, 41, 42]
