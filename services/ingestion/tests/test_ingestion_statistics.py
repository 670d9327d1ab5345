"""Folds and merges: every valid event is counted once in its window, whatever dies in between."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace_contracts.events import (
    CategoricalSummary,
    NumericalSummary,
    PartialSummarised,
    PredictionMade,
    WindowSummarised,
)
from tailrace_contracts.ranges import Log
from tailrace_ingestion.consumers import Aggregating, Validating
from tailrace_ingestion.domain import merging
from tailrace_ingestion.domain.merging import ModelWindows, Timing, merged
from tailrace_ingestion.domain.partials import record_key
from tailrace_ingestion.testing import (
    START,
    FixedSpecs,
    KeptPartials,
    applied,
    prediction,
    rain_spec,
    record_of,
    spec_effects,
)
from tailrace_runtime.errors import PoisonEvent
from tailrace_runtime.metrics import Instrument, Metrics
from tailrace_runtime.records import Record

TOPIC = "prediction-events"
LOG = Log(TOPIC, 0)
INSTRUMENTS = [
    Instrument("tailrace_late_events", "gauge", "late", ("model",)),
    Instrument("tailrace_open_windows", "gauge", "open"),
]


class Life:
    """One life of the role: from the assignment of partition 0 to its death."""

    def __init__(self, published: KeptPartials, specs: FixedSpecs | None = None, max_waiting_rows: int = 100) -> None:
        self.metrics = Metrics("ingestion", INSTRUMENTS)
        self.role = Validating(spec_effects(specs or FixedSpecs(applied())), published, self.metrics, max_waiting_rows)
        self.published = published

    async def begin(self) -> "Life":
        """Take the partition over."""
        await self.role.assigned({LOG})
        return self

    async def read(self, records: Sequence[Record]) -> None:
        """Handle a batch."""
        assert (await self.role.predictions(records)).commit_through == -1

    async def tick(self) -> int | None:
        """Publish; what may be committed after it."""
        outcome = (await self.role.tick()).get(LOG)
        if outcome is None:
            return None
        self.published.keep((out.key, out.value) for out in outcome.emit)
        return outcome.commit_through


def records(events: Iterable[PredictionMade], first: int = 0) -> list[Record]:
    """The events on partition 0."""
    return [record_of(event, TOPIC, offset) for offset, event in enumerate(events, first)]


def newest(published: KeptPartials) -> dict[int, WindowSummarised]:
    """What the last partials of each window add up to, by the day on which it begins, as compaction leaves them."""
    last = {record_key(each): each for each in parsed(published)}
    windows: dict[int, list[PartialSummarised]] = {}
    for each in last.values():
        windows.setdefault((each.window.start - START).days, []).append(each)
    return {day: merged(parts, 200, closed=False) for day, parts in windows.items()}


def parsed(published: KeptPartials) -> list[PartialSummarised]:
    """Every partial, in order."""
    return [PartialSummarised.model_validate_json(value) for _, value in published.values]


def numbers(partial: WindowSummarised, name: str) -> NumericalSummary:
    """A numerical column."""
    column = partial.columns[name]
    assert isinstance(column, NumericalSummary)
    return column


async def test_a_window_counts_its_events_and_names_their_offsets() -> None:
    """The statistics of a window would not be those of its events, or not say which they were."""
    published = KeptPartials()
    life = await Life(published).begin()
    await life.read(records(prediction(n, latency_ms=2.0) for n in range(4, 18)))
    assert await life.tick() == 13
    assert await life.tick() is None
    partials = newest(published)
    assert {start: partial.events for start, partial in partials.items()} == {0: 6, 10: 8}
    second = partials[10]
    assert [str(source) for source in second.derived_from] == ["prediction-events[0]@6..13"]
    assert (numbers(second, "wind").count, numbers(second, "wind").mean) == (8, 13.5)
    assert numbers(second, "latency_ms").mean == 2.0
    sky, served = second.columns["sky"], second.columns["prediction"]
    assert isinstance(sky, CategoricalSummary)
    assert isinstance(served, CategoricalSummary)
    assert (sky.counts, served.counts) == ({"grey": 8}, {"0": 4, "1": 4})
    assert max(each.watermark for each in parsed(published)) == START + timedelta(days=17)


async def test_outputs_that_no_event_has_are_no_columns() -> None:
    """Observations without a prediction would show up as missing predictions."""
    published = KeptPartials()
    life = await Life(published).begin()
    await life.read(records(prediction(n, served=None) for n in range(3)))
    await life.tick()
    assert set(newest(published)[0].columns) == {"wind", "pressure", "sky"}


@pytest.mark.parametrize(
    ("policy", "count", "maximum"), [("reject", 2, 1), ("clip", 3, 200), ("null", 2, 1), ("flag", 3, 294)]
)
async def test_values_out_of_limits_are_counted_under_every_policy(policy: str, count: int, maximum: float) -> None:
    """A sensor fault would be invisible in the statistics, or a nulled value be folded as if it were there."""
    wind = {"type": "numerical", "name": "wind", "limits": {"min": 0, "max": 200}, "on_out_of_limits": policy}
    specs = FixedSpecs(applied(rain_spec(features=[wind])))
    published = KeptPartials()
    life = await Life(published, specs).begin()
    await life.read(records(prediction(n, days=1, features={"wind": wind}) for n, wind in enumerate([0, 1, 294])))
    await life.tick()
    partial = newest(published)[0]
    column = numbers(partial, "wind")
    assert (column.count, column.maximum, column.out_of_limits, column.missing) == (count, maximum, 1, 0)
    assert partial.events == (2 if policy == "reject" else 3)


async def test_missing_and_unseen_values_are_counted() -> None:
    """Data quality could not be watched."""
    published = KeptPartials()
    life = await Life(published).begin()
    odd: list[dict[str, float | str | None]] = [
        {"pressure": None, "sky": None},
        {"pressure": 1.0, "sky": "pink"},
        {"pressure": None, "sky": "grey"},
    ]
    await life.read(records(prediction(n, days=1, features={**each, "wind": 1}) for n, each in enumerate(odd)))
    await life.tick()
    columns = newest(published)[0].columns
    sky = columns["sky"]
    assert isinstance(sky, CategoricalSummary)
    assert (columns["pressure"].missing, sky.missing, sky.unseen, sky.count) == (2, 1, 1, 2)


async def test_late_events_are_counted_and_kept_out() -> None:
    """A closed window would change after everybody has acted on it, or a late event vanish without a trace."""
    published = KeptPartials()
    life = await Life(published).begin()
    await life.read(records([prediction(1), prediction(14), prediction(2), prediction(25), prediction(3)]))
    await life.tick()
    found = {start: (partial.events, partial.late) for start, partial in newest(published).items()}
    assert found == {0: (2, 0), 10: (1, 0), 20: (1, 1)}


async def test_a_log_of_refused_values_only_goes_on_until_a_valid_one_comes() -> None:
    """A producer whose first values are all out of limits would stop the role, again after each restart."""
    published = KeptPartials()
    life = await Life(published).begin()
    refused = [prediction(n, features={"wind": 900.0, "pressure": None, "sky": "grey"}) for n in (1, 12, 2, 13)]
    await life.read(records(refused[:2]))
    assert await life.tick() == 1
    await life.read(records(refused[2:], 2))
    assert await life.tick() == 3
    await life.read(records([prediction(14)], 4))
    assert await life.tick() == 4
    found = {start: (each.events, numbers(each, "wind").out_of_limits) for start, each in newest(published).items()}
    assert found == {0: (0, 2), 10: (1, 2)}


async def test_a_new_spec_starts_new_columns() -> None:
    """A feature that became a word would be folded into the numbers of the old spec, or stop the role."""
    published, specs = KeptPartials(), FixedSpecs(applied())
    life = await Life(published, specs).begin()
    await life.read(records([prediction(1)]))
    wind = {"type": "categorical", "name": "wind", "categories": ["calm", "storm"]}
    specs._models |= FixedSpecs(applied(rain_spec(features=[wind]), 2)).models()
    await life.read(records([prediction(2, features={"wind": "calm"})], first=1))
    await life.tick()
    partial = newest(published)[0]
    assert (partial.spec_revision, partial.events, partial.columns["wind"].type) == (2, 2, "categorical")


@settings(max_examples=100, deadline=None)
@given(
    days=st.lists(st.integers(0, 60), min_size=1, max_size=60),
    kills=st.lists(st.tuples(st.integers(1, 20), st.sampled_from(["before", "between", "after"])), max_size=6),
)
async def test_killed_at_any_moment_the_fold_is_exact(days: list[int], kills: list[tuple[int, str]]) -> None:
    """Statistics would count events twice, or not at all: killed before publication, before the commit, or after it."""
    events = records(
        prediction(n, days=day, features={"wind": n, "pressure": 1, "sky": "grey"}) for n, day in enumerate(days)
    )
    whole = KeptPartials()
    life = await Life(whole).begin()
    await life.read(events)
    await life.tick()

    published, committed = KeptPartials(), 0
    for size, moment in [*kills, (len(events), "after")]:
        life = await Life(published, max_waiting_rows=3).begin()
        rest = events[committed : committed + size] if (size, moment) != (len(events), "after") else events[committed:]
        for at in range(0, len(rest), 4):
            await life.read(rest[at : at + 4])
        through = None if moment == "before" else await life.tick()
        if moment == "after" and through is not None and through >= 0:
            committed = through + 1
    expected, found = newest(whole), newest(published)
    assert {start: (each.events, each.late, numbers(each, "wind").count) for start, each in found.items()} == {
        start: (each.events, each.late, numbers(each, "wind").count) for start, each in expected.items()
    }
    assert {start: numbers(each, "wind").mean for start, each in found.items()} == {
        start: pytest.approx(numbers(each, "wind").mean) for start, each in expected.items()
    }


# ---------------------------------------------------------------- merging

TIMING = Timing(lateness=5 * 86_400, idle=60, sources=2)


def partial(
    source: int, day: int, events: int, *, through: int = 10, watermark: int | None = None, late: int = 0
) -> PartialSummarised:
    """What a source partition has seen of the window of ten days that begins on that day."""
    return PartialSummarised.model_validate(
        {
            "model": "rain",
            "spec_revision": 1,
            "window": {"start": START + timedelta(days=day), "end": START + timedelta(days=day + 10)},
            "source": {"topic": TOPIC, "partition": source, "from_offset": 0, "through_offset": through},
            "events": events,
            "late": late,
            "columns": {"wind": NumericalSummary(count=events, mean=float(source), minimum=0, maximum=9)},
            "watermark": START + timedelta(days=day if watermark is None else watermark),
        }
    )


def due(windows: ModelWindows, now: float = 0.0) -> list[tuple[int, int, bool]]:
    """Day, events and closedness of the windows that are due."""
    found = windows.due(TIMING, now, every=1.0)
    return [((each.window.start - START).days, each.events, each.closed) for each in found]


def test_partials_of_all_sources_add_up_and_replace_their_own() -> None:
    """A window would count a partition twice, or forget one."""
    windows = ModelWindows("rain")
    assert windows.apply(partial(0, 0, 3), 1000)
    assert windows.apply(partial(1, 0, 4), 1000)
    assert due(windows) == [(0, 7, False)]
    assert windows.apply(partial(0, 0, 5, through=12), 1000)
    assert not windows.apply(partial(0, 0, 4, through=11), 1000)
    assert not windows.apply(partial(0, 0, 5, through=12), 1000)
    assert due(windows, now=0.5) == []
    assert due(windows, now=1.0) == [(0, 9, False)]


def test_a_window_closes_when_every_source_has_passed_it() -> None:
    """A window would be judged before all partitions have told what they saw."""
    windows = ModelWindows("rain")
    windows.apply(partial(0, 0, 3), 1000)
    windows.apply(partial(0, 20, 1, watermark=25), 1000)
    assert due(windows) == [(0, 3, False), (20, 1, False)]
    windows.apply(partial(1, 0, 4), 2000)
    assert due(windows, now=1) == [(0, 7, False)]
    windows.apply(partial(1, 10, 1, watermark=15), 3000)
    assert due(windows, now=2) == [(0, 7, True), (10, 1, False)]
    assert due(windows, now=3) == []


def test_a_silent_source_does_not_hold_windows_open() -> None:
    """One idle partition would keep every window of a model open for ever."""
    windows = ModelWindows("rain")
    windows.apply(partial(1, 0, 4), 1000)
    windows.apply(partial(0, 20, 1, watermark=25), 62_000)
    assert due(windows) == [(0, 4, True), (20, 1, False)]


def test_a_late_partial_gives_a_closed_window_out_again() -> None:
    """A partition that was slow would be missing from closed windows for ever."""
    windows = ModelWindows("rain")
    for source in (0, 1):
        windows.apply(partial(source, 0, 3), 1000)
        windows.apply(partial(source, 10, 1, watermark=16), 1000)
    assert due(windows)[0] == (0, 6, True)
    windows.apply(partial(0, 0, 4, through=11), 1000)
    assert due(windows)[0] == (0, 7, True)


def test_windows_long_over_are_forgotten_and_stay_so() -> None:
    """The tables would grow for ever, or an old partial bring a window back with part of its events."""
    windows = ModelWindows("rain")
    for source in (0, 1):
        windows.apply(partial(source, 0, 3), 1000)
        windows.apply(partial(source, 30, 1, watermark=26), 1000)
    assert len(due(windows)) == 2
    assert [part.source.partition for part in windows.forget(TIMING)] == [0, 1]
    assert not windows.apply(partial(0, 0, 3), 1000)
    assert due(windows) == []


def test_windows_are_kept_for_a_source_that_is_silent_for_a_while() -> None:
    """What a killed process's successor tells half a minute later would be in no window."""
    windows = ModelWindows("rain")
    windows.apply(partial(0, 0, 3, through=10), 1000)
    windows.apply(partial(1, 0, 4, through=10), 1000)
    windows.apply(partial(0, 30, 1, through=20, watermark=90), 62_000)
    assert due(windows) == [(0, 7, True), (30, 1, True)]
    assert windows.forget(TIMING) == []
    assert windows.apply(partial(1, 0, 9, through=15), 63_000)
    assert due(windows, now=1) == [(0, 12, True)]
    windows.apply(partial(0, 40, 1, through=30, watermark=95), 63_000 + 86_400_000 + 1)
    assert len(windows.forget(TIMING)) == 3
    assert not windows.apply(partial(1, 0, 9, through=15), 64_000)
    assert windows.too_late == 0
    assert not windows.apply(partial(1, 0, 11, through=17), 64_000)
    assert windows.too_late == 1


def test_the_windows_kept_for_silent_sources_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition without events would make the tables grow for a day, however fast the stream is played."""
    monkeypatch.setattr(merging, "MOST_HELD", 3)
    windows = ModelWindows("rain")
    windows.apply(partial(1, 0, 4), 1000)
    for number in range(1, 10):
        windows.apply(partial(0, number * 10, 1, watermark=number * 10), 60_000 + number * 2000)
    due(windows)
    dropped = windows.forget(TIMING)
    assert sorted((each.window.start - START).days for each in dropped) == [0, 10, 20, 30]
    assert sorted((key.start - START.timestamp()) / 86_400 for key in windows.windows) == [40, 50, 60, 70, 80, 90]


def test_a_window_is_closed_before_it_is_forgotten() -> None:
    """Where events jump ahead, windows would be forgotten that nobody has ever seen closed."""
    windows = ModelWindows("rain")
    for source in (0, 1):
        windows.apply(partial(source, 0, 3), 1000)
    assert due(windows) == [(0, 6, False)]
    windows.apply(partial(0, 90, 1), 2000)
    windows.apply(partial(1, 90, 1), 2000)
    windows.apply(partial(1, 10, 1, watermark=90), 2000)
    assert windows.forget(TIMING) == []
    assert due(windows, now=1) == [(0, 6, True), (10, 1, True), (90, 2, False)]
    assert len(windows.forget(TIMING)) == 3


def test_what_a_crash_leaves_in_the_tables_goes_on() -> None:
    """After a restart, windows would be incomplete, or closed ones be announced once more."""
    windows = ModelWindows("rain")
    kept = [partial(source, day, 3, watermark=16) for source in (0, 1) for day in (0, 10)]
    for each in kept:
        windows.apply(each, 1000)
    assert due(windows) == [(0, 6, True), (10, 6, False)]
    again = ModelWindows("rain", windows.dump())
    for each in kept:
        again.restore(each)
    assert due(again) == [(10, 6, False)]


def test_the_newest_spec_decides_what_a_column_is() -> None:
    """A change of type would stop the aggregation of every window that saw both."""
    windows = ModelWindows("rain")
    words = {"wind": CategoricalSummary(count=2, counts={"calm": 2})}
    windows.apply(partial(0, 0, 3), 1000)
    windows.apply(partial(1, 0, 2).model_copy(update={"columns": words, "spec_revision": 2}), 1000)
    (window,) = windows.due(TIMING, 0, 1)
    assert (window.spec_revision, window.events, window.columns) == (2, 5, words)


class Tables:
    """The tables in dicts."""

    def __init__(self) -> None:
        self.partials: dict[str, bytes] = {}
        self.models: dict[str, bytes] = {}

    def keep_partial(self, key: str, value: bytes | None) -> None:
        """Store or forget."""
        if value is None:
            self.partials.pop(key, None)
        else:
            self.partials[key] = value

    def keep_model(self, model: str, value: bytes) -> None:
        """Store."""
        self.models[model] = value


def aggregating(metrics: Metrics | None = None) -> Aggregating:
    """The role, before it has taken anything in."""
    return Aggregating(
        FixedSpecs(applied()),
        metrics=metrics or Metrics("ingestion", INSTRUMENTS),
        window_seconds=1,
        idle_source_seconds=60,
        gone_source_seconds=86_400,
    )


def test_a_record_that_is_no_partial_is_poison() -> None:
    """One stray record on `window-partials` would stop all statistics."""
    role = aggregating()
    with pytest.raises(PoisonEvent, match=r"window-partials\[0\]@7 is no partial-summarised event: model"):
        role.partial(Record("window-partials", 0, 7, 0, b"k", b"{}", ()), Tables())


def test_the_role_keeps_in_its_tables_what_it_needs() -> None:
    """A worker that takes over would begin with nothing."""
    tables = Tables()
    role = aggregating()
    for source in range(4):
        value = partial(source, 0, source + 1)
        role.partial(Record("window-partials", 1, source, 1000, None, value.encode(), ()), tables)
    assert [out.topic for out in role.due()] == ["feature-statistics"]
    again = aggregating()
    again.rebuild(tables.partials.values(), tables.models.items(), set(range(4)))
    (out,) = again.due()
    window = WindowSummarised.model_validate_json(out.value or b"")
    assert (window.events, out.key, len(window.derived_from)) == (10, b"rain", 44)
    again.rebuild(tables.partials.values(), tables.models.items(), set())
    assert (again.due(), again.open_windows) == ([], 0)


def test_late_events_are_told_as_the_tables_have_them() -> None:
    """The number of late events would be lost at a kill, or doubled when partials are read again."""
    tables, metrics = Tables(), Metrics("ingestion", INSTRUMENTS)
    told = [partial(source, 0, 3, late=source + 1) for source in range(4)]

    def take(role: Aggregating) -> float:
        for offset, each in enumerate(told):
            role.partial(Record("window-partials", 1, offset, 1000, None, each.encode(), ()), tables)
        return metrics.value("tailrace_late_events", model="rain")

    assert take(aggregating(metrics)) == 10
    metrics = Metrics("ingestion", INSTRUMENTS)
    again = aggregating(metrics)
    again.rebuild(tables.partials.values(), tables.models.items(), set(range(4)))
    assert metrics.value("tailrace_late_events", model="rain") == 10
    assert take(again) == 10
    (out,) = again.due()
    assert WindowSummarised.model_validate_json(out.value or b"").late == 10
    again.rebuild([], [], set())
    assert metrics.value("tailrace_late_events", model="rain") == 0
