"""The join: every label meets its prediction once, in any order, through any crash."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace_contracts.events import (
    CoverageMeasured,
    Event,
    EventParked,
    ExampleLabelled,
    LabelGiven,
    PredictionMade,
)
from tailrace_contracts.ranges import Log
from tailrace_ingestion.adapters.rocksdb import RocksStores
from tailrace_ingestion.app import INSTRUMENTS
from tailrace_ingestion.consumers import Joining
from tailrace_ingestion.domain.coverage import CohortKey
from tailrace_ingestion.ports import Places, Stores
from tailrace_ingestion.testing import (
    START,
    FixedOffsets,
    FixedSpecs,
    MemoryStores,
    applied,
    label,
    prediction,
    rain_spec,
    record_of,
)
from tailrace_runtime.deadletters import original
from tailrace_runtime.errors import RetryLater
from tailrace_runtime.highwater import REACH, HighWater
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.records import Record
from tailrace_runtime.testing import FixedClock, RecordingProducer

PREDICTIONS, LABELS = Log("predictions", 0), Log("labels", 0)


class Join:
    """The role on partition 0, with two logs that grow as events are taken in."""

    def __init__(self, stores: Stores | None = None) -> None:
        self.stores = stores or MemoryStores()
        self.producer = RecordingProducer()
        self.offsets = FixedOffsets()
        self.metrics = Metrics("ingestion", INSTRUMENTS)
        self.logs: dict[str, list[Record]] = {"predictions": [], "labels": []}
        self.specs = FixedSpecs(applied())
        self._committed = (0, 0)
        self.role = self._role()

    def _role(self) -> Joining:
        return Joining(
            self.specs,
            self.stores,
            self.offsets,
            self.producer,
            self.metrics,
            clock=FixedClock(),
            coverage_seconds=0.0,
        )

    async def begin(self, places: dict[Log, Places] | None = None) -> dict[Log, int]:
        """A new life of the role; where it reads on."""
        self.offsets.known = places or {
            PREDICTIONS: Places(0, self._committed[0], len(self.logs["predictions"])),
            LABELS: Places(0, self._committed[1], len(self.logs["labels"])),
        }
        self.role, self.offsets.logs = self._role(), self.logs
        return await self.role.assigned({PREDICTIONS, LABELS})

    def committed(self, predictions: int, labels: int) -> None:
        """What the group had committed before the next life."""
        self._committed = (predictions, labels)

    async def take(self, *events: PredictionMade | LabelGiven, trigger: int | None = None) -> list[ExampleLabelled]:
        """Put events on their logs and handle each; the examples that came of it."""
        before = len(self.examples())
        for event in events:
            topic = "predictions" if isinstance(event, PredictionMade) else "labels"
            headers = () if trigger is None else (("trigger-offset", b"%d" % trigger),)
            self.logs[topic].append(record_of(event, topic, len(self.logs[topic]), headers=headers))
            await self.read(topic, self.logs[topic][-1:])
        return self.examples()[before:]

    async def read(self, topic: str, records: Sequence[Record]) -> int | None:
        """Handle records of a log, if there are any; what may be committed."""
        if not records:
            return None
        handler = self.role.predictions if topic == "predictions" else self.role.labels
        return (await handler(records)).commit_through

    def examples(self) -> list[ExampleLabelled]:
        """Every example that was published."""
        return [event for event in self.producer.events("labelled-examples") if isinstance(event, ExampleLabelled)]

    def taken(self) -> list[ExampleLabelled]:
        """Those of the examples that a reader takes."""
        seen = HighWater()
        return [each for each in self.examples() if seen.admit(each.trigger, (each.prediction_id, each.label_revision))]

    async def count(self, outcome: str) -> int:
        """A counter of the join."""
        await self.role.tick()
        return int(self.metrics.value("tailrace_join_records", model="rain", outcome=outcome))

    def letters(self) -> list[tuple[str, int, bytes]]:
        """Every dead letter: its code, and where the record stood and what it was."""
        found = [original_of(event) for event in self.producer.events("dead-letters")]
        return [(code, record.offset, record.value or b"") for code, record in found]

    async def coverage(self) -> dict[int, CoverageMeasured]:
        """The newest coverage of each window, by the day on which it begins."""
        await self.role.tick()
        found = [each for each in self.producer.events("label-coverage") if isinstance(each, CoverageMeasured)]
        return {(each.window.start - START).days: each for each in found}


def original_of(event: Event) -> tuple[str, Record]:
    """A dead letter's code and record."""
    assert isinstance(event, EventParked)
    return event.code, original(event)


@pytest.fixture
async def join() -> Join:
    """A join at its beginning."""
    join = Join()
    await join.begin()
    return join


async def test_a_label_completes_its_prediction(join: Join) -> None:
    """Learners would get no examples, or examples that do not say what they were made from."""
    made = prediction(1, entity="me", shadows=prediction(1).served and (prediction(1).served,))
    (example,) = await join.take(prediction(0), made, label(1))
    assert (example.prediction_id, example.label, example.label_revision, example.replaces) == ("p1", 1, 0, None)
    assert (example.time, example.label_time) == (made.time, label(1).time)
    assert (example.features, example.served, example.shadows) == (made.features, made.served, made.shadows)
    assert example.entity == "me"
    assert (example.trigger.topic, example.trigger.offset) == ("labels", 0)
    assert str(example.derived_from) == "labels[0]@0..0, predictions[0]@1..1"
    (record,) = join.producer.on("labelled-examples")
    assert (record.key, record.header("ce_id")) == (b"rain", b"rain/p1/0")


async def test_a_label_before_its_prediction_waits(join: Join) -> None:
    """Labels that overtake their predictions would be lost."""
    assert await join.take(label(1)) == []
    assert await join.count("waiting_labels") == 1
    (example,) = await join.take(prediction(1))
    assert (example.label, example.trigger.topic) == (1, "predictions")
    assert (await join.count("waiting_labels"), await join.count("joined")) == (0, 1)
    assert await join.count("label_first") == 1


async def test_a_label_whose_prediction_never_comes_is_parked(join: Join) -> None:
    """Labels without a prediction would fill the disk, or vanish without a trace."""
    await join.take(label(999, days=1), prediction(1), prediction(2, days=90))
    assert (await join.count("waiting_labels"), await join.count("unmatched_labels")) == (1, 0)
    await join.take(prediction(3, days=91.5))
    assert (await join.count("waiting_labels"), await join.count("unmatched_labels")) == (0, 1)
    assert join.letters() == [("prediction-never-came", 0, label(999, days=1).encode())]
    assert (await join.coverage())[0].unmatched_labels == 1
    await join.take(prediction(999, days=92), label(999, days=1))
    assert (await join.count("joined"), await join.count("unmatched_labels")) == (1, 1)


async def test_a_label_after_the_horizon_of_its_prediction_is_parked_as_late(join: Join) -> None:
    """Nobody would know that the horizon is too short; or a repeated label be taken for a late one."""
    await join.take(prediction(1), prediction(2), label(2, days=3), prediction(3, days=100), label(3, days=104))
    assert await join.count("expired_predictions") == 1
    assert await join.take(label(1, days=104), label(2, days=104), label(2, 0, days=104), prediction(1)) == []
    counts = [await join.count(each) for each in ("late_labels", "duplicate_labels", "duplicate_predictions")]
    assert counts == [2, 1, 1]
    assert [(code, offset) for code, offset, _ in join.letters()] == [("label-too-late", 2), ("label-too-late", 4)]
    window = (await join.coverage())[0]
    assert (window.predictions, window.labelled, window.expired, window.late_labels) == (2, 1, 1, 2)
    await join.take(prediction(4, days=200), label(4, days=204))
    await join.role.tick()
    store = join.stores.open(0)
    assert [store.get(b"e|rain|p%d" % n) is None for n in (1, 2, 3, 4)] == [True, True, False, False]


async def test_killed_before_a_refused_label_is_on_the_dead_letters(join: Join) -> None:
    """A label would be counted as refused, and be nowhere."""
    await join.take(label(999, days=1), prediction(1), prediction(3, days=92))
    join.producer.fail_next()
    with pytest.raises(RetryLater):
        await join.role.tick()
    assert await join.count("unmatched_labels") == 1
    assert len(join.letters()) == 1


async def test_nothing_expires_while_one_log_is_not_read(join: Join) -> None:
    """A lost disk would cost every label: predictions would be read first, and expire before their labels are read."""
    day = 86_400_000
    join.logs = {
        "predictions": [record_of(prediction(n, days=n), "predictions", n, timestamp_ms=n * day) for n in range(200)],
        "labels": [record_of(label(n, days=n + 1), "labels", n, timestamp_ms=(n + 1) * day) for n in range(200)],
    }
    await join.begin()
    await join.read("predictions", join.logs["predictions"])
    assert await join.count("expired_predictions") == 0
    await join.read("labels", join.logs["labels"])
    assert (await join.count("joined"), len(join.examples())) == (200, 200)


async def test_where_the_labels_are_silent_the_brokers_clock_counts_too(join: Join) -> None:
    """A model that never gets a label would keep every prediction for ever."""
    await join.take(prediction(1), prediction(2, days=200))
    assert await join.count("expired_predictions") == 0
    later = record_of(prediction(3, days=201), "predictions", 2, timestamp_ms=91 * 86_400_000)
    await join.read("predictions", [later])
    assert (await join.count("expired_predictions"), await join.count("waiting_predictions")) == (1, 2)


async def test_a_prediction_without_a_label_expires_by_the_labels_time(join: Join) -> None:
    """Predictions would be forgotten while their labels are still on the way, or kept for ever."""
    await join.take(prediction(1), *(prediction(n, days=100 + n) for n in (2, 3)), label(2, days=80))
    assert await join.count("expired_predictions") == 0
    await join.take(label(3, days=104))
    assert (await join.count("expired_predictions"), await join.count("waiting_predictions")) == (1, 0)
    assert await join.take(label(1)) == []
    assert (await join.count("waiting_labels"), await join.count("late_labels")) == (0, 1)


async def test_labels_far_behind_predictions_still_meet_them(join: Join) -> None:
    """History that is played fast, all predictions before all labels, would lose its labels."""
    await join.take(*(prediction(n, days=n) for n in range(0, 400, 10)))
    await join.role.tick()
    assert len(await join.take(*(label(n, days=n + 20) for n in range(0, 400, 10)))) == 40


async def test_a_duplicate_prediction_changes_nothing(join: Join) -> None:
    """A producer that retries would change what was asked after it was answered."""
    other = prediction(1, features={"wind": 9, "pressure": 9, "sky": "clear"})
    await join.take(prediction(1), other)
    (example,) = await join.take(label(1))
    assert example.features == prediction(1).features
    assert await join.count("duplicate_predictions") == 1
    assert await join.take(other) == []


async def test_a_label_twice_is_dropped(join: Join) -> None:
    """An example would be learned twice."""
    assert len(await join.take(prediction(1), label(1), label(1, days=5))) == 1
    assert (await join.count("joined"), await join.count("duplicate_labels")) == (1, 1)


async def test_a_corrected_label_gives_a_new_example(join: Join) -> None:
    """A corrected truth would never be learned, or be taken for another prediction's."""
    examples = await join.take(prediction(1), label(1, 1), label(1, 0), label(1, 0), label(1, 1))
    assert [(each.label, each.label_revision, each.replaces) for each in examples] == [
        (1, 0, None),
        (0, 1, 1),
        (1, 2, 0),
    ]
    assert [each.trigger.offset for each in examples] == [0, 1, 3]
    assert (await join.count("corrections"), await join.count("joined")) == (2, 1)


async def test_a_label_corrected_before_its_prediction_counts_as_corrected(join: Join) -> None:
    """The first, wrong value would be learned, or a revision have two meanings when the state is rebuilt."""
    await join.take(label(1, 1), label(1, 0))
    (example,) = await join.take(prediction(1))
    assert (example.label, example.label_revision, example.replaces) == (0, 1, None)
    assert await join.count("waiting_labels") == 0


async def test_models_do_not_share_prediction_ids(join: Join) -> None:
    """Two models with numbered predictions would get each other's labels."""
    assert await join.take(prediction(1), label(1, model="snow")) == []


async def test_records_that_were_forwarded_again_are_passed_over(join: Join) -> None:
    """After a crash of `validate`, a label and its correction come again, and would look like two more corrections."""
    await join.take(prediction(1), trigger=0)
    await join.take(label(1, 1), trigger=5)
    await join.take(label(1, 0), trigger=6)
    assert await join.take(label(1, 1), trigger=5) == []
    assert await join.take(label(1, 0), trigger=6) == []
    assert (await join.count("corrections"), await join.count("forwarded_again")) == (1, 2)


async def test_a_record_that_is_no_event_is_parked(join: Join) -> None:
    """A stray record on `predictions` would stop the join for ever."""
    await join.role.predictions([Record("predictions", 0, 0, 0, b"k", b"{}", ())])
    assert join.letters() == [("not-an-event", 0, b"{}")]
    join.logs["predictions"].append(Record("predictions", 0, 0, 0, b"k", b"{}", ()))
    assert await join.begin() == {PREDICTIONS: 1, LABELS: 0}


async def test_coverage_says_what_became_of_a_windows_predictions(join: Join) -> None:
    """Nobody would see that labels of last week have stopped coming, or from which records that is known."""
    await join.take(*(prediction(n, days=n / 2) for n in range(30)))
    await join.take(*(label(n, days=n / 2 + 1) for n in range(0, 30, 3)), label(0, 0, days=2))
    found = await join.coverage()
    assert {day: (each.predictions, each.labelled, each.corrections) for day, each in found.items()} == {
        0: (20, 7, 1),
        10: (10, 3, 0),
    }
    assert found[0].label_delays == {"131072": 7}
    assert found[0].partition == 0
    assert (found[0].through, str(found[0].derived_from)) == (41, "labels[0]@0..10, predictions[0]@0..29")
    assert str(found[10].derived_from) == "labels[0]@0..10, predictions[0]@20..29"
    (first, *_) = join.producer.on("label-coverage")
    assert first.key == b"0|rain|2024-01-08T00:00:00+00:00"
    published = len(join.producer.on("label-coverage"))
    await join.role.tick()
    assert len(join.producer.on("label-coverage")) == published


async def test_coverage_survives_a_lost_disk(join: Join) -> None:
    """After a move, coverage would be counted twice, or fall back to what a half-read log says."""
    await join.take(*(prediction(n) for n in range(8)), *(label(n) for n in range(5)))
    before = await join.coverage()
    join.committed(predictions=8, labels=5)
    join.stores.destroy(0)
    await join.begin()
    assert await join.coverage() == before


async def test_a_broker_that_is_away_puts_coverage_off(join: Join) -> None:
    """What changed during an outage would never be published."""
    await join.take(prediction(1))
    join.producer.fail_next()
    with pytest.raises(RetryLater):
        await join.role.tick()
    assert (await join.coverage())[0].predictions == 1


async def test_another_window_in_the_spec_leaves_counted_predictions_where_they_are(join: Join) -> None:
    """A label would be counted in a window that never counted its prediction."""
    await join.take(prediction(1))
    narrow = rain_spec(monitors={"window_days": 1, "allowed_lateness_days": 5})
    join.specs = FixedSpecs(applied(narrow, 2))
    await join.begin({PREDICTIONS: Places(0, 1, 1), LABELS: Places(0, 0, 0)})
    await join.take(label(1), prediction(2))
    found = await join.coverage()
    assert {day: (each.predictions, each.labelled) for day, each in found.items()} == {0: (1, 1), 2: (1, 0)}
    assert [(each.window.end - each.window.start).days for each in found.values()] == [10, 1]


async def test_windows_of_long_ago_are_forgotten_once_their_labels_have_passed(join: Join) -> None:
    """The disk would fill with windows; or years of history, predictions first, be counted wrong."""
    store, first = join.stores.open(0), CohortKey("rain", START.timestamp()).encode()
    await join.take(prediction(1), prediction(2, days=1000))
    await join.role.tick()
    assert store.get(first) is not None
    await join.take(label(1))
    assert (await join.coverage())[0].labelled == 1
    await join.take(label(2, days=1001))
    await join.role.tick()
    assert store.get(first) is None
    assert (await join.coverage())[1000].labelled == 1


async def test_a_state_of_another_format_is_made_anew(join: Join) -> None:
    """After an upgrade the join would stop, or count on from numbers that mean something else."""
    await join.take(prediction(1), label(1))
    join.stores.open(0).write({b"progress": msgspec.msgpack.encode({"next": {"predictions": 1, "labels": 1}})})
    assert await join.begin() == {PREDICTIONS: 0, LABELS: 0}


async def test_killed_after_publication_before_the_state_is_written(join: Join) -> None:
    """The example would be lost, or a repetition could not be told from a new one."""
    await join.take(prediction(1))
    store = MemoryStores.open(join.stores, 0) if isinstance(join.stores, MemoryStores) else None
    assert store is not None
    store.fail_next(OSError("killed"))
    with pytest.raises(OSError, match="killed"):
        await join.take(label(1))
    place = await join.begin()
    assert place == {PREDICTIONS: 1, LABELS: 0}
    await join.read("labels", join.logs["labels"])
    first, second = join.examples()
    assert first == second


async def test_killed_after_the_state_is_written_before_the_commit(join: Join) -> None:
    """The role would publish again what it has finished, or skip what it has not."""
    await join.take(prediction(1), label(1))
    join.committed(predictions=0, labels=0)
    assert await join.begin() == {PREDICTIONS: 1, LABELS: 1}
    assert await join.count("joined") == 1


async def test_a_broker_that_is_away_changes_nothing(join: Join) -> None:
    """An outage would leave a state that says `joined` for an example that nobody got."""
    await join.take(prediction(1))
    join.producer.fail_next()
    with pytest.raises(RetryLater):
        await join.take(label(1))
    await join.read("labels", join.logs["labels"])
    assert len(join.examples()) == 1


async def test_a_lost_state_is_rebuilt_without_publishing_again(join: Join) -> None:
    """A new disk would forget what waits, or publish every example of a month again."""
    await join.take(prediction(1), prediction(2), label(1), label(3), label(1, 0), prediction(4))
    published = len(join.examples())
    join.committed(predictions=3, labels=3)
    join.stores.destroy(0)
    assert await join.begin() == {PREDICTIONS: 3, LABELS: 3}
    for topic in ("labels", "predictions"):
        await join.read(topic, join.logs[topic][3:])
    assert len(join.examples()) == published
    examples = await join.take(label(2), prediction(3), label(1, 1))
    assert [(each.prediction_id, each.label_revision) for each in examples] == [("p2", 0), ("p3", 0), ("p1", 2)]


async def test_what_was_not_committed_is_published_after_a_loss(join: Join) -> None:
    """An example whose second half was never committed may never have been published: it must not be left out."""
    await join.take(label(1), prediction(1))
    join.committed(predictions=0, labels=1)
    join.stores.destroy(0)
    assert await join.begin() == {PREDICTIONS: 0, LABELS: 1}
    await join.read("predictions", join.logs["predictions"])
    assert len(join.examples()) == 2


async def test_a_new_label_of_an_old_prediction_reaches_readers_after_a_loss(join: Join) -> None:
    """Readers would take the example for an echo: its trigger would be the prediction, far below their mark."""
    early, late = range(REACH, REACH + 50), range(50)
    await join.take(*(label(n, days=1) for n in early), *(prediction(n, days=1) for n in range(REACH + 50)))
    join.committed(predictions=REACH + 50, labels=50)
    join.stores.destroy(0)
    join.logs["labels"] += [record_of(label(n, days=1), "labels", 50 + n) for n in late]
    begun = await join.begin()
    for topic in ("labels", "predictions"):
        await join.read(topic, join.logs[topic][begun[Log(topic, 0)] :])
    assert {each.prediction_id for each in join.taken()} == {f"p{n}" for n in (*early, *late)}


async def test_a_state_of_other_topics_is_put_away(join: Join) -> None:
    """After the topics were made anew, the join would wait for offsets that come in a year."""
    await join.take(prediction(1), label(1))
    assert await join.begin({PREDICTIONS: Places(0, 0, 0), LABELS: Places(0, 0, 0)}) == {PREDICTIONS: 0, LABELS: 0}


async def test_offsets_that_retention_removed_are_not_asked_for(join: Join) -> None:
    """A rebuild would stop at records that are gone."""
    join.logs["predictions"] = [record_of(prediction(n, days=1), "predictions", n) for n in range(500, 700)]
    join.logs["labels"] = [record_of(label(n, days=1), "labels", n) for n in range(80, 100)]
    assert await join.begin({PREDICTIONS: Places(500, 600, 700), LABELS: Places(80, 90, 100)}) == {
        PREDICTIONS: 600,
        LABELS: 90,
    }


events = st.lists(
    st.tuples(st.sampled_from(["prediction", "label"]), st.integers(0, 5), st.integers(0, 1)), min_size=1, max_size=40
)


@settings(max_examples=60, deadline=None)
@given(events=events, interleaving=st.randoms(use_true_random=False), deaths=st.lists(st.integers(1, 15), max_size=5))
async def test_any_order_and_any_death_lead_to_the_same_truth(
    events: list[tuple[str, int, int]],
    interleaving: "st.random.Random",  # type: ignore[name-defined]  # hypothesis gives a random.Random
    deaths: list[int],
) -> None:
    """Which example counts for a prediction would depend on luck."""
    logs: dict[str, list[Record]] = {"predictions": [], "labels": []}
    for kind, number, value in events:
        topic = "predictions" if kind == "prediction" else "labels"
        event = prediction(number) if kind == "prediction" else label(number, value)
        logs[topic].append(record_of(event, topic, len(logs[topic])))
    join, committed = Join(), {"predictions": 0, "labels": 0}
    join.logs = logs
    for steps in [*deaths, 10_000]:
        join.committed(**committed)
        if interleaving.random() < 0.4:
            join.stores.destroy(0)
        place = {log.topic: offset for log, offset in (await join.begin()).items()}
        for _ in range(steps):
            open_logs = [topic for topic in logs if place[topic] < len(logs[topic])]
            if not open_logs:
                break
            topic = interleaving.choice(open_logs)
            through = place[topic] + interleaving.randint(1, 3)
            batch = logs[topic][place[topic] : through]
            may_commit = await join.read(topic, batch)
            place[topic] += len(batch)
            if may_commit is None and interleaving.random() < 0.7:
                committed[topic] = max(committed[topic], place[topic])
    said = {(each.prediction_id, each.label_revision, each.label) for each in join.examples()}
    assert len({(prediction_id, revision) for prediction_id, revision, _ in said}) == len(said)
    truth = {number: value for kind, number, value in events if kind == "label"}
    asked = {number for kind, number, _ in events if kind == "prediction"}
    taken = sorted(join.taken(), key=lambda each: each.label_revision)
    final = {int(each.prediction_id[1:]): each.label for each in taken}
    assert final == {number: value for number, value in truth.items() if number in asked}
    coverage = (await join.coverage()).get(0)
    counted = (0, 0) if coverage is None else (coverage.predictions, coverage.labelled)
    assert counted == (len(asked), len(asked & truth.keys()))


# ---------------------------------------------------------------- stores: one suite, two of them


@pytest.fixture(params=["rocksdb", "memory"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """The real stores and the fake."""
    real: Stores = RocksStores(tmp_path / "join")
    return real if request.param == "rocksdb" else MemoryStores()


def test_a_store_keeps_what_was_written_in_order_of_keys(stores: Stores) -> None:
    """Expiry goes through the keys in their order; state must outlive the process."""
    store = stores.open(0)
    store.write({b"b": b"2", b"a": b"1", b"c": b"3", b"\xff": b"4"})
    store.write({b"b": None, b"a": b"one"})
    store.close()
    store = stores.open(0)
    assert (store.get(b"a"), store.get(b"b"), store.get(b"zz")) == (b"one", None, None)
    assert store.get_many([b"c", b"b", b"a"]) == [b"3", None, b"one"]
    assert store.get_many([]) == []
    assert (store.keys(b"a", b"\xff", 10), store.keys(b"a", b"c", 10)) == ([b"a", b"c"], [b"a"])
    assert store.keys(b"", b"\xff\xff", 1) == [b"a"]
    store.close()


def test_a_destroyed_store_is_empty_and_alone(stores: Stores) -> None:
    """A rebuild would begin on old state, or take another partition's away."""
    for partition in (0, 1):
        store = stores.open(partition)
        store.write({b"k": b"v"})
        store.close()
    stores.destroy(0)
    stores.destroy(7)
    first, second = stores.open(0), stores.open(1)
    assert (first.get(b"k"), second.get(b"k")) == (None, b"v")
    first.close()
    second.close()


def test_a_corrupt_store_is_made_anew(tmp_path: Path) -> None:
    """A damaged disk would keep the service from starting, although the topics have everything."""
    stores = RocksStores(tmp_path)
    store = stores.open(0)
    store.write({b"k": b"v"})
    store.close()
    (manifest,) = (tmp_path / "0").glob("MANIFEST*")
    manifest.write_bytes(b"junk" * 100)
    store = stores.open(0)
    assert store.get(b"k") is None
    store.close()
