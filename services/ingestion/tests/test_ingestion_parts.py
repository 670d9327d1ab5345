"""Windows in parts: by version, by group, in chunks, with a sample; the same whole whatever the split."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace_contracts.events import (
    ArmOutput,
    CategoricalSummary,
    NumericalSummary,
    PartialSummarised,
    PredictionMade,
    Slice,
    WindowSummarised,
    decode,
)
from tailrace_contracts.ranges import Log
from tailrace_contracts.spec import ModelSpec
from tailrace_ingestion.consumers.validating import published
from tailrace_ingestion.domain.folding import SourceBook
from tailrace_ingestion.domain.merging import ModelWindows, Timing
from tailrace_ingestion.domain.partials import record_key
from tailrace_ingestion.domain.parts import Facet, plan_of
from tailrace_ingestion.domain.wire import encode_summary
from tailrace_ingestion.handlers import validate_predictions
from tailrace_ingestion.testing import START, FixedSpecs, applied, prediction, rain_spec, record_of
from tailrace_runtime.records import Record
from tailrace_statistics import DISTINCT_ERROR, distinct_values, quantile
from tailrace_statistics.sketches import RANK_ERROR

TOPIC = "prediction-events"
TIMING = Timing(lateness=5 * 86_400, idle=60, sources=1, sample_rows=20)
SPEC = rain_spec(protected=["sky"], monitors={"window_days": 10, "allowed_lateness_days": 30, "sample_rows": 20})


async def book_of(records: Sequence[Record], spec: ModelSpec = SPEC, batch: int = 1_000) -> SourceBook:
    """The book of these records' log after they were read in batches of this size."""
    book, specs = SourceBook(Log(TOPIC, records[0].partition)), FixedSpecs(applied(spec))
    book.begin(records[0].offset, {})
    for at in range(0, len(records), batch):
        await validate_predictions(records[at : at + batch], specs, book, "predictions")
    return book


def together(partials: Sequence[PartialSummarised]) -> WindowSummarised:
    """The one window that these partials make."""
    windows = ModelWindows("rain")
    for each in partials:
        windows.apply(each, 1000)
    (window,) = windows.due(TIMING, 0, 1)
    return window


def on(events: Sequence[PredictionMade], partition: int = 0) -> list[Record]:
    """The events on one partition."""
    return [record_of(event, TOPIC, offset, partition=partition) for offset, event in enumerate(events)]


def served(number: int, arm: str = "champion", version: int | None = 1) -> ArmOutput:
    """An answer, positive for odd numbers."""
    return ArmOutput.model_validate(
        {"arm": arm, "prediction": number % 2, "probability": 0.6 + number % 2 / 5, "version": version}
    )


def event(number: int, **changes: object) -> PredictionMade:
    """An event of the first day, of a random sky."""
    sky = ["clear", "grey", "pink", None][number % 4]
    features = {"wind": float(number % 100), "pressure": None if number % 7 == 0 else number / 3, "sky": sky}
    given: dict[str, object] = {"days": number / 10_000, "features": features, "served": served(number)}
    return prediction(number, **{**given, **changes})  # type: ignore[arg-type]  # a document, checked by the event


def named(window: WindowSummarised) -> dict[str, Slice]:
    """The slices by name."""
    return {Facet(each.arm, each.version, each.attribute, each.group).name: each for each in window.slices}


def numbers(part: WindowSummarised | Slice, name: str) -> NumericalSummary:
    """A numerical column."""
    column = part.columns[name]
    assert isinstance(column, NumericalSummary)
    return column


def words(part: WindowSummarised | Slice, name: str) -> CategoricalSummary:
    """A categorical column."""
    column = part.columns[name]
    assert isinstance(column, CategoricalSummary)
    return column


async def test_a_window_is_sliced_by_version_shadow_and_group() -> None:
    """Nobody could tell which version or which group a change is about."""
    shadow = served(1, "shadow", 3)
    events = [
        *(event(n) for n in range(40)),
        *(event(n, served=served(n, "canary", 2), shadows=(shadow,)) for n in range(40, 60)),
        *(event(n, served=None) for n in range(60, 70)),
    ]
    window = together([*(await book_of(on(events))).publish()])
    slices = named(window)
    assert window.events == 70
    assert {name: each.events for name, each in slices.items()} == {
        "arm:champion/1": 40,
        "arm:canary/2": 20,
        "arm:shadow/3": 20,
        "group:sky=clear": 18,
        "group:sky=grey": 18,
        "group:sky=other": 17,
        "group:sky=missing": 17,
    }
    assert numbers(slices["arm:canary/2"], "wind").mean == np.mean(range(40, 60))
    assert set(slices["arm:shadow/3"].columns) == {"prediction", "probability", "probability_if_positive"}
    assert words(window, "prediction").counts == {"0": 30, "1": 30}
    assert (numbers(window, "wind").count, numbers(window, "probability").count) == (70, 60)
    assert numbers(window, "probability_if_positive").mean == pytest.approx(0.8)
    assert numbers(window, "probability_if_negative").mean == pytest.approx(0.6)


async def test_one_version_is_a_slice_that_equals_the_whole() -> None:
    """Readers of slices would see none in a deployment with one version; or the statistics would be kept twice."""
    partials = [*(await book_of(on([event(n) for n in range(100)]), rain_spec())).publish()]
    window = together(partials)
    (part,) = window.slices
    assert (part.arm, part.version, part.events, part.columns) == ("champion", 1, 100, window.columns)
    assert [each.part for each in partials] == ["arm:champion/1", "sample"]


async def test_a_window_takes_so_many_versions_and_no_more() -> None:
    """A producer of random versions would grow the windows until the process dies."""
    events = [event(n, served=served(n, "external", n + 1)) for n in range(100)]
    window = together([*(await book_of(on(events))).publish()])
    arms = [each for each in window.slices if each.arm]
    assert (len(arms), sum(each.events for each in arms), window.events) == (17, 100, 100)


def wide(features: int, groups: int = 0) -> ModelSpec:
    """A spec with many features, the first a word with many categories, protected where there are any."""
    named = [{"type": "numerical", "name": f"f{n}", "on_missing": "flag"} for n in range(features)]
    word = {"type": "categorical", "name": "who", "categories": [f"g{n}" for n in range(groups)]}
    protected = {"features": [word, *named], "protected": ["who"]} if groups else {"features": named}
    return rain_spec(**protected)


@pytest.mark.parametrize(("features", "groups"), [(1_000, 0), (1_000, 60), (45, 60)])
async def test_no_message_comes_near_the_limit(features: int, groups: int) -> None:
    """A model with a thousand features, or many groups, would stop the role on the day that it is applied."""
    spec, random_ = wide(features, groups), np.random.default_rng(1)
    rows = 2_000 if groups and features < 100 else 300
    events = [
        prediction(
            n,
            days=0.001 * n,
            features={f"f{at}": value for at, value in enumerate(row)} | ({"who": f"g{n % groups}"} if groups else {}),
        )
        for n, row in enumerate(random_.normal(size=(rows, features)).tolist())
    ]
    book = await book_of(on(events), spec)
    partials = [*book.publish()]
    assert max(len(published(each).value or b"") for each in partials) < 900_000
    window = together(partials)
    assert len(encode_summary(window)) < 11_000_000
    assert len(partials) > 3
    assert (window.events, {numbers(window, f"f{n}").count for n in range(features)}) == (rows, {rows})
    assert sum(each.events for each in window.slices if each.attribute) == (rows if groups else 0)
    assert len(window.sample) >= 5


async def test_what_an_older_version_published_is_gone_on_with() -> None:
    """An upgrade in the middle of a window would count its events twice, or forget them."""
    events = on([event(n) for n in range(60)])
    (first, *_) = [*(await book_of(events[:40])).publish()]
    (part,) = first.slices
    old = first.model_copy(update={"part": "", "slices": (), "columns": part.columns, "events": 40})
    book = SourceBook(Log(TOPIC, 0))
    book.recover([encode_summary(old).replace(b'"part":"",', b"")])
    book.begin(20, {"rain": FixedSpecs(applied(SPEC)).models()["rain"].shape})
    await validate_predictions(events[20:], FixedSpecs(applied(SPEC)), book, "predictions")
    window = together([old, *book.publish()])
    assert (window.events, numbers(window, "wind").count) == (60, 60)
    assert named(window)["arm:champion/1"].events == 20


async def test_the_fast_encoding_of_partials_and_windows_is_that_of_the_contract() -> None:
    """Readers would see other statistics than were folded, or refuse them."""
    events = [event(n, shadows=(served(n, "shadow", 2),)) for n in range(50)]
    partials = [*(await book_of(on(events))).publish()]
    for each in (*partials, together(partials)):
        assert decode(encode_summary(each)) == decode(each.model_dump_json(warnings=False).encode())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    partitions=st.integers(1, 4),
    batch=st.integers(1, 40),
    deaths=st.lists(st.tuples(st.integers(1, 60), st.booleans()), max_size=4),
)
async def test_any_split_gives_the_same_window(
    seed: int, partitions: int, batch: int, deaths: list[tuple[int, bool]]
) -> None:
    """Statistics would depend on the number of partitions and processes, on batches, crashes or the order of messages."""
    chance = random.Random(seed)
    versions = [served(0), served(1), served(1, "canary", 2), None]
    shadows = [(), (served(1, "shadow", 3),)]
    events = [event(n, served=chance.choice(versions), shadows=chance.choice(shadows)) for n in range(120)]
    places = [chance.randrange(partitions) for _ in events]
    said: list[PartialSummarised] = []
    for partition in range(partitions):
        log = on([each for each, place in zip(events, places, strict=True) if place == partition], partition)
        if log:
            said += await _lives(log, batch, deaths)
    again = [*said, *chance.sample(said, len(said) // 2)]
    chance.shuffle(again)
    found, whole = together(again), together(await _lives(on(events), 1_000, []))
    assert _counts(found) == _counts(whole)
    assert [sum(place == row.partition for place in places) > row.offset for row in found.sample] == [True] * 20
    rows = Counter((row.partition, row.offset) for row in found.sample)
    assert (len(found.sample), max(rows.values())) == (20, 1)
    for name in ("wind", "pressure"):
        a, b = numbers(found, name), numbers(whole, name)
        assert (a.distinct, a.minimum, a.maximum) == (b.distinct, b.minimum, b.maximum)
        assert a.mean == pytest.approx(b.mean)
        assert a.m2 == pytest.approx(b.m2)
        assert quantile(a, [0.5]) == quantile(b, [0.5])
        assert distinct_values(a) == pytest.approx(len({row.features[name] for row in events}), rel=4 * DISTINCT_ERROR)
        assert a.frequent_error <= a.count / 33


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    partitions=st.integers(1, 4),
    batch=st.integers(1, 40),
    deaths=st.lists(st.tuples(st.integers(1, 60), st.booleans()), max_size=4),
    lateness_days=st.sampled_from([0, 5, 30]),
)
async def test_any_split_counts_every_event_once_in_its_window_or_as_late(
    seed: int, partitions: int, batch: int, deaths: list[tuple[int, bool]], lateness_days: int
) -> None:
    """Out of order, events would be in no count or in two; or batches, crashes and messages decide which are late."""
    chance = random.Random(seed)
    events = [event(n, days=30 + n / 4 - chance.choice([0, 0, 0, 7, 28])) for n in range(200)]
    believed = {"clock": "stream", "max_ahead_days": 365, "max_behind_days": 365}
    spec = rain_spec(time=believed, monitors={"window_days": 10, "allowed_lateness_days": lateness_days})
    places = [chance.randrange(partitions) for _ in events]
    logs = [[each for each, place in zip(events, places, strict=True) if place == at] for at in range(partitions)]
    said, calm = list[PartialSummarised](), list[PartialSummarised]()
    for partition, log in enumerate(logs):
        if log:
            said += await _lives(on(log, partition), batch, deaths, spec)
            calm += await _lives(on(log, partition), 1_000, [], spec)
    again = [*said, *chance.sample(said, len(said) // 2)]
    chance.shuffle(again)
    found, one = _events_and_late(again), _events_and_late(await _lives(on(events), 1_000, [], spec))
    assert found == _events_and_late(calm)
    late, late_in_one = (sum(late for _, late in each.values()) for each in (found, one))
    assert sum(events for events, _ in found.values()) + late == len(events)
    assert all(found[day][0] >= events for day, (events, _) in one.items())
    assert late <= late_in_one
    if lateness_days == 30:
        assert found == one
    elif lateness_days == 0:
        assert late_in_one > 0


async def test_a_backlog_with_late_events_is_in_its_windows_when_they_are_forgotten() -> None:
    """Read in one go after a break, a late event would close windows of which the partials are still to come."""
    events = [event(n, days=n - (28 if n % 30 == 29 else 0)) for n in range(200)]
    believed = {"clock": "stream", "max_ahead_days": 365, "max_behind_days": 365}
    spec = rain_spec(time=believed, monitors={"window_days": 10, "allowed_lateness_days": 5})
    windows, newest, counted = ModelWindows("rain"), dict[int, WindowSummarised](), list[int]()
    for now, each in enumerate(await _lives(on(events), 50, [], spec)):
        windows.apply(each, 1000)
        newest |= {(found.window.start - START).days: found for found in windows.due(TIMING, now, 1)}
        windows.forget(TIMING)
        counted.append(windows.late)
        assert windows.late == sum(part.late for kept in windows.windows.values() for part in kept.parts.values())
    assert len(windows.windows) < len(newest) == 20
    assert max(counted) > counted[-1] == 0
    assert (sum(each.late for each in newest.values()), windows.too_late) == (6, 0)
    assert sum(each.events for each in newest.values()) == 194


async def test_many_events_however_split_stay_within_the_bounds_of_their_sketches() -> None:
    """At sizes at which sketches are no longer exact, quantiles, distinct counts and frequent values would be further off."""
    size, random_ = 24_000, np.random.default_rng(5)
    values = {f"even{n}": random_.gamma(n + 1, size=size) for n in range(8)}
    values |= {f"uneven{n}": random_.zipf(1.2 + n / 5, size).clip(max=10**6).astype(float) for n in range(2)}
    spec = rain_spec(features=[{"type": "numerical", "name": name} for name in values])
    rows = [dict(zip(values, row, strict=True)) for row in np.array([*values.values()]).T.tolist()]
    events = [prediction(n, days=n / size, features=row) for n, row in enumerate(rows)]
    places = random_.integers(0, 4, size)
    deaths = [(1_500, True), (900, False), (2_000, True), (700, False)]
    said: list[PartialSummarised] = []
    for partition in range(4):
        log = on([each for each, place in zip(events, places, strict=True) if place == partition], partition)
        said += await _lives(log, 250, deaths, spec)
    random.Random(5).shuffle(said)
    window = together(said)
    assert window.events == size
    errors = [_rank_errors(numbers(window, name), column) for name, column in values.items() if "even" in name]
    assert np.mean(np.array(errors) <= RANK_ERROR) >= 0.9  # each with 99 % confidence, by chance that no seed decides
    assert np.max(errors) <= 2 * RANK_ERROR
    for name, column in values.items():
        found = numbers(window, name)
        assert distinct_values(found) == pytest.approx(len(set(column.tolist())), rel=3 * DISTINCT_ERROR)
        _frequent_within_their_error(found, Counter(column.tolist()))
    assert numbers(window, "uneven0").frequent[0].value == 1.0


def _rank_errors(found: NumericalSummary, column: npt.NDArray[np.float64]) -> list[float]:
    """By how much the ranks of nine quantiles are off: those of a value that came often are an interval."""
    ranks = np.arange(1, 10) / 10
    places = np.array(quantile(found, ranks.tolist()))[:, None]
    narrow = column.astype(np.float32).astype(np.float64)
    below, through = (narrow < places).mean(axis=1), (narrow <= places).mean(axis=1)
    return [max(0.0, each) for each in np.maximum(below - ranks, ranks - through).tolist()]


def _frequent_within_their_error(found: NumericalSummary, truth: Counter[float]) -> None:
    """No count is too high, none lower than the error allows, and nothing more frequent than the error is left out."""
    told = {float(each.value): each.count for each in found.frequent}
    assert found.frequent_error <= found.count / 33
    assert all(truth[value] - found.frequent_error <= count <= truth[value] for value, count in told.items())
    assert {value for value, count in truth.items() if count > found.frequent_error} <= told.keys()


def _events_and_late(partials: Sequence[PartialSummarised]) -> dict[int, tuple[int, int]]:
    """By the day on which a window begins: its events, and those that came late while it was the newest."""
    windows = ModelWindows("rain")
    for each in partials:
        windows.apply(each, 1000)
    found = {(each.window.start - START).days: each for each in windows.due(TIMING, 0, 1)}
    assert all(each.events == numbers(each, "wind").count for each in found.values() if each.events)
    return {day: (each.events, each.late) for day, each in sorted(found.items())}


async def _lives(
    log: Sequence[Record], batch: int, deaths: Sequence[tuple[int, bool]], spec: ModelSpec = SPEC
) -> list[PartialSummarised]:
    """Everything that is published while the log is read, killed now and then before or after the commit."""
    specs, said, committed = FixedSpecs(applied(spec)), list[PartialSummarised](), 0
    for size, keeps_commit in [*deaths, (len(log), True)]:
        book = SourceBook(Log(TOPIC, log[0].partition))
        book.recover([encode_summary(each) for each in said])
        book.begin(committed, {"rain": specs.models()["rain"].shape})
        rest = log[committed:] if size == len(log) else log[committed : committed + size]
        for at in range(0, len(rest), batch):
            await validate_predictions(rest[at : at + batch], specs, book, "predictions")
        made = [*book.publish()] if rest else []
        if not keeps_commit:  # killed in the middle of the publication
            said += made[: len(made) // 2]
            continue
        said += made
        committed = max(committed, book.committable + 1)
    return said


def _counts(window: WindowSummarised) -> dict[str, object]:
    """All that has to be the same to the last event."""
    parts = {"": window} | named(window)
    return {
        name: (
            part.events,
            {
                column: summary.model_dump(
                    include={"count", "missing", "out_of_limits", "unseen", "counts", "unseen_counts", "distinct"}
                )
                for column, summary in sorted(part.columns.items())
            },
        )
        for name, part in parts.items()
    }


async def test_the_sample_is_uniform_and_that_of_the_lowest_ranks() -> None:
    """A test on the sample would see some hours or some partitions more than others."""
    spec = rain_spec(monitors={"window_days": 1_000, "allowed_lateness_days": 30, "sample_rows": 500})
    events = [
        prediction(n, days=n / 1e4, features={"wind": n % 100, "pressure": 1, "sky": "grey"}) for n in range(5_000)
    ]
    partials = [each for half in (0, 1) for each in (await book_of(on(events[half::2], half), spec)).publish()]
    windows = ModelWindows("rain")
    for each in partials:
        windows.apply(each, 1000)
    (window,) = windows.due(TIMING._replace(sample_rows=500), 0, 1)
    moments = [2 * row.offset + row.partition for row in window.sample]
    assert len(set(moments)) == 500
    assert np.histogram(moments, bins=5, range=(0, 5_000))[0].min() > 60
    assert 0.09 < window.sample[-1].rank < 0.11
    assert all(row.values["wind"] == (2 * row.offset + row.partition) % 100 for row in window.sample)
    assert {*window.sample[0].values} == {"wind", "pressure", "sky", "prediction", "probability"}


def test_the_plan_of_a_wide_spec_has_every_feature_once() -> None:
    """A feature would have no statistics, or twice as many values as there are."""
    plan = plan_of(wide(1_000))
    assert sorted(name for chunk in plan.chunks for name in chunk) == sorted(f"f{n}" for n in range(1_000))
    assert (plan.sliced, plan.sample_rows > 10) == ((), True)
    assert plan_of(rain_spec()).chunks == ()


async def test_the_key_of_a_partial_names_its_part() -> None:
    """Compaction would keep one part of a window and drop the others."""
    partials = [*(await book_of(on([event(n) for n in range(20)]))).publish()]
    keys = [record_key(each) for each in partials]
    assert len(set(keys)) == len(keys) == 6
    assert keys[0] == f"0|rain|{START.isoformat().replace('+00:00', 'Z')}|arm:champion/1"
    assert {each.window.end - each.window.start for each in partials} == {timedelta(days=10)}
