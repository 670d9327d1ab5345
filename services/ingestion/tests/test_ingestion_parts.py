"""Windows in parts: by version, by group, in chunks, with a sample; the same whole whatever the split."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
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


async def _lives(log: Sequence[Record], batch: int, deaths: Sequence[tuple[int, bool]]) -> list[PartialSummarised]:
    """Everything that is published while the log is read, killed now and then before or after the commit."""
    specs, said, committed = FixedSpecs(applied(SPEC)), list[PartialSummarised](), 0
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
