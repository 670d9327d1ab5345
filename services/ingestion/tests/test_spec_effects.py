"""A changed spec takes effect at a known offset, and a log that is read again is checked as it was the first time."""

import asyncio
import itertools
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace_contracts.events import SpecTookEffect
from tailrace_contracts.ranges import Log
from tailrace_contracts.spec import ModelSpec
from tailrace_ingestion import app
from tailrace_ingestion.adapters.topics import KafkaEffects
from tailrace_ingestion.consumers import SpecsInForce, Validating
from tailrace_ingestion.domain.effects import SpecHistory
from tailrace_ingestion.main import HTTP_IN, TOPICS_IN
from tailrace_ingestion.settings import IngestionSettings
from tailrace_ingestion.testing import (
    START,
    Deployment,
    FixedSpecs,
    KeptPartials,
    applied,
    prediction,
    rain_spec,
    record_of,
    spec_effects,
)
from tailrace_runtime.consumer import Outcome
from tailrace_runtime.errors import RetryLater
from tailrace_runtime.metrics import Instrument, Metrics
from tailrace_runtime.records import Record, outgoing
from tailrace_runtime.testing import RecordingProducer
from tailrace_testing import eventually

LOG = Log("prediction-events", 0)


def calm_spec() -> ModelSpec:
    """The spec of `rain` for a place where the wind never passes 10."""
    document = rain_spec().model_dump(mode="json")
    document["features"][0]["limits"] = {"min": 0, "max": 10}
    return ModelSpec.model_validate(document)


def effect(revision: int, from_offset: int, model: str = "rain") -> SpecTookEffect:
    """What stands on the topic."""
    return SpecTookEffect(
        model=model,
        spec_revision=revision,
        topic=LOG.topic,
        partition=LOG.partition,
        from_offset=from_offset,
        spec=rain_spec(model=model),
        time=START,
    )


def windy(*offsets: int) -> list[Record]:
    """Events with a wind of 20: valid for the first spec, out of limits for the second."""
    events = {offset: prediction(offset, days=1) for offset in offsets}
    return [
        record_of(event.model_copy(update={"features": {**event.features, "wind": 20.0}}), LOG.topic, offset)
        for offset, event in events.items()
    ]


class Life:
    """One life of `validate`, over what earlier lives wrote down."""

    def __init__(self, specs: FixedSpecs, producer: RecordingProducer) -> None:
        metrics = Metrics("ingestion", [Instrument("tailrace_open_windows", "gauge", "open")])
        self.role = Validating(spec_effects(specs, producer), KeptPartials(), metrics, 100)

    async def read(self, records: Sequence[Record]) -> Outcome:
        """Take the log over and read a batch of it."""
        await self.role.assigned({LOG})
        return await self.role.predictions(records)


def written(producer: RecordingProducer) -> list[tuple[int, int]]:
    """Revision and offset of each effect that was written down."""
    events = [SpecTookEffect.model_validate_json(record.value or b"") for record in producer.sent]
    return [(each.spec_revision, each.from_offset) for each in events]


async def test_the_first_batch_of_a_new_spec_says_where_it_begins() -> None:
    """Nobody could say by which limits an event was judged."""
    producer = RecordingProducer()
    first = await Life(FixedSpecs(applied()), producer).read(windy(0, 1, 2))
    second = await Life(FixedSpecs(applied(calm_spec(), 2)), producer).read(windy(3, 4))
    assert written(producer) == [(1, 0), (2, 3)]
    assert len(first.emitted) == 3
    assert [parked.code for parked in second.parked] == ["out-of-limits", "out-of-limits"]


async def test_a_log_that_is_read_again_is_checked_as_it_was() -> None:
    """After a crash, events that had been forwarded would be parked too, because the spec was changed meanwhile."""
    producer = RecordingProducer()
    await Life(FixedSpecs(applied()), producer).read(windy(0, 1, 2))
    await Life(FixedSpecs(applied(calm_spec(), 2)), producer).read(windy(3, 4))
    again = await Life(FixedSpecs(applied(calm_spec(), 2)), producer).read(windy(0, 1, 2, 3, 4))
    assert [(out.key or b"").decode() for out in again.emitted] == ["p0", "p1", "p2"]
    assert [parked.record.offset for parked in again.parked] == [3, 4]
    assert written(producer) == [(1, 0), (2, 3)]


async def test_nothing_comes_of_a_batch_before_its_spec_is_written_down() -> None:
    """A crash in between would leave events that were judged by a spec of which the log knows nothing."""
    producer = RecordingProducer()
    producer.fail_next()
    life = Life(FixedSpecs(applied()), producer)
    with pytest.raises(RetryLater):
        await life.read(windy(0))
    assert producer.sent == []
    assert len((await life.role.predictions(windy(0))).emitted) == 1
    assert written(producer) == [(1, 0)]


async def test_events_before_the_first_spec_stay_unknown_when_they_are_read_again() -> None:
    """A dead letter that was replayed by a person would be forwarded a second time by a restart."""
    producer = RecordingProducer()
    await Life(FixedSpecs(applied()), producer).read(windy(5))
    again = await Life(FixedSpecs(applied()), producer).read(windy(3, 4, 5))
    assert [parked.code for parked in again.parked] == ["unknown-model", "unknown-model"]
    assert [out.key for out in again.emitted] == [b"p5"]


async def test_a_process_that_has_not_heard_of_the_newest_spec_goes_on_with_it() -> None:
    """A partition would fall back to an older spec with a rebalance."""
    producer = RecordingProducer()
    await Life(FixedSpecs(applied(calm_spec(), 2)), producer).read(windy(0))
    behind = await Life(FixedSpecs(applied()), producer).read(windy(1))
    assert [parked.code for parked in behind.parked] == ["out-of-limits"]
    assert written(producer) == [(2, 0)]


def test_what_two_owners_wrote_down_counts_from_the_first_offset() -> None:
    """A process that had lost the partition would move the place at which a spec began."""
    history = SpecHistory([effect(1, 0), effect(2, 150), effect(2, 120)])
    found = history.at("rain", 130)
    assert found.effect is not None
    assert (found.effect.spec_revision, found.effect.from_offset) == (2, 120)
    assert history.cuts(0, 200) == [120]


@given(
    st.dictionaries(st.integers(0, 40), st.integers(1, 5), max_size=6),
    st.lists(st.integers(0, 40), min_size=1, max_size=30, unique=True).map(sorted),
)
def test_parts_are_the_batch_and_nothing_changes_inside_of_one(places: Mapping[int, int], offsets: list[int]) -> None:
    """Events would be lost, doubled, or judged by a spec that begins in the middle of their part."""
    effects = spec_effects(FixedSpecs())
    known = [effect(revision, offset) for offset, revision in places.items()]
    history, batch = SpecHistory(known), windy(*offsets)
    parts = [list(part) for part in SpecsInForce(LOG, effects, known).parts(batch)]
    assert [record for part in parts for record in part] == batch
    for part in parts:
        assert len({str(history.at("rain", record.offset).effect) for record in part}) == 1


async def test_it_is_written_on_the_topic_and_found_there(deployment: Deployment) -> None:
    """The place would be known to the process only, and gone with it."""
    written_down = KafkaEffects(deployment.settings)
    numbers = itertools.count()

    async def in_force(*revisions: int) -> bool:
        """Whether these revisions took effect on every partition; events keep coming meanwhile."""
        await deployment.publish(*(prediction(next(numbers), days=1) for _ in range(20)))
        found = {(each.spec_revision, each.partition) for each in await written_down.all() if each.topic == LOG.topic}
        return found == {(revision, partition) for revision in revisions for partition in range(4)}

    settings = IngestionSettings.model_validate(deployment.settings.model_dump() | {"roles": ["validate"]})
    service = app.create_service(HTTP_IN, TOPICS_IN, settings)
    stop = asyncio.Event()
    task = asyncio.create_task(service.run(stop))
    await eventually(lambda: in_force(1))
    await deployment.send(outgoing(applied(calm_spec(), 2), "model-specs", "rain"))
    await eventually(lambda: in_force(1, 2))
    stop.set()
    await task
