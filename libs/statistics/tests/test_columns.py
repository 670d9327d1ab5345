"""Folds and merges of columns."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace_contracts.events import CategoricalSummary, ColumnSummary, NumericalSummary
from tailrace_contracts.spec import CategoricalFeature, Limits, NumericalFeature
from tailrace_statistics import (
    CategoricalFold,
    NumericalFold,
    SketchInvalid,
    fold_for,
    merge,
    merge_all,
    merge_columns,
    quantile,
    resume_fold,
    standard_deviation,
)
from tailrace_statistics.columns import UNSEEN_KEPT, UNSEEN_LENGTH
from tailrace_statistics.sketches import RANK_ERROR

LIMITS = Limits(min=-100, max=100)
WORDS = ("calm", "breeze", "storm")

numbers = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=32), st.integers(-200, 200))
number_parts = st.lists(st.lists(numbers, max_size=30), min_size=1, max_size=6)
words = st.one_of(st.none(), st.sampled_from([*WORDS, "?", "hail"]), st.text(max_size=2))
word_parts = st.lists(st.lists(words, max_size=30), min_size=1, max_size=6)


def numerical(values: Any) -> NumericalSummary:
    """The summary of one batch."""
    fold = NumericalFold(LIMITS)
    fold.fold(values)
    return fold.summary()


def categorical(values: list[str | None]) -> CategoricalSummary:
    """The summary of one batch."""
    fold = CategoricalFold(WORDS)
    fold.fold(values)
    return fold.summary()


def in_pairs(parts: list[ColumnSummary], random: Any) -> ColumnSummary:
    """The parts merged two by two, in a random order and grouping."""
    left = list(parts)
    while len(left) > 1:
        a = left.pop(random.randrange(len(left)))
        b = left.pop(random.randrange(len(left)))
        left.append(merge(a, b))
    return left[0]


def same_moments(a: NumericalSummary, b: NumericalSummary) -> bool:
    """Equal to the rounding that the sizes of the values allow."""
    size = max((abs(each) for each in (a.minimum, a.maximum) if each is not None), default=0.0)
    return math.isclose(a.mean, b.mean, rel_tol=1e-9, abs_tol=1e-12 * size) and math.isclose(
        a.m2, b.m2, rel_tol=1e-6, abs_tol=1e-9 * size * size
    )


@settings(max_examples=60, deadline=None)
@given(parts=number_parts, random=st.randoms(use_true_random=False))
def test_numbers_merge_in_any_order_and_grouping(parts: list[list[float | None]], random: Any) -> None:
    """Statistics would depend on how many partitions and instances a deployment has."""
    whole = numerical([value for part in parts for value in part])
    merged = in_pairs([numerical(part) for part in parts], random)
    assert isinstance(merged, NumericalSummary)
    exact = {"count", "missing", "out_of_limits", "minimum", "maximum"}
    assert merged.model_dump(include=exact) == whole.model_dump(include=exact)
    assert same_moments(merged, whole)


@settings(max_examples=60, deadline=None)
@given(parts=word_parts, random=st.randoms(use_true_random=False))
def test_words_merge_in_any_order_and_grouping(parts: list[list[str | None]], random: Any) -> None:
    """Category counts would depend on how many partitions and instances a deployment has."""
    whole = categorical([value for part in parts for value in part])
    assert in_pairs([categorical(part) for part in parts], random) == whole
    assert merge_all([categorical(part) for part in parts]) == whole


@settings(max_examples=40, deadline=None)
@given(parts=number_parts)
def test_numbers_fold_on_from_a_summary(parts: list[list[float | None]]) -> None:
    """After a restart a window would count its events twice, or forget those before."""
    summary = NumericalSummary()
    for part in parts:
        fold = NumericalFold.from_summary(NumericalSummary.model_validate_json(summary.model_dump_json()), LIMITS)
        fold.fold(part)
        summary = fold.summary()
    whole = numerical([value for part in parts for value in part])
    assert (summary.count, summary.missing, summary.out_of_limits) == (whole.count, whole.missing, whole.out_of_limits)
    assert same_moments(summary, whole)


@settings(max_examples=40, deadline=None)
@given(parts=word_parts)
def test_words_fold_on_from_a_summary(parts: list[list[str | None]]) -> None:
    """After a restart a window would count its words twice, or forget those before."""
    summary = CategoricalSummary()
    for part in parts:
        fold = CategoricalFold.from_summary(summary, WORDS)
        fold.fold(part)
        summary = fold.summary()
    assert summary == categorical([value for part in parts for value in part])


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), max_size=40))
def test_no_valid_number_breaks_the_statistics(values: list[float | None]) -> None:
    """One enormous value would write NaN or infinity, which JSON does not have, and the window could not be read."""
    summary = numerical(values)
    assert math.isfinite(summary.mean)
    assert math.isfinite(summary.m2)
    assert NumericalSummary.model_validate_json(summary.model_dump_json()) == summary


def test_moments_agree_with_numpy() -> None:
    """The console would show wrong means and deviations."""
    values = np.random.default_rng(1).normal(1e6, 2.0, size=5_000)
    fold = NumericalFold()
    for batch in np.array_split(values, 37):
        fold.fold(batch)
    summary = fold.summary()
    assert summary.mean == pytest.approx(values.mean(), rel=1e-12)
    assert standard_deviation(summary) == pytest.approx(values.std(ddof=1), rel=1e-9)
    assert (summary.minimum, summary.maximum) == (values.min(), values.max())


def test_limits_are_counted_inclusively() -> None:
    """Values on the edge of what the spec allows would be counted as faults."""
    assert numerical([-100, 100, 100.5, -101, None, math.nan]).out_of_limits == 2


def test_numpy_columns_and_lists_are_the_same() -> None:
    """A caller with arrays would get other statistics than one with lists."""
    assert numerical(np.array([1.0, np.nan, 3.0])) == numerical([1.0, None, 3.0])


def test_quantiles_stay_within_the_bound_after_many_merges() -> None:
    """Drift would be measured on distorted distributions after enough windows."""
    values = np.random.default_rng(2).exponential(size=200_000)
    merged: ColumnSummary = merge_all([numerical(part) for part in np.array_split(values, 50)])
    assert isinstance(merged, NumericalSummary)
    ranks = [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99]
    found = quantile(merged, ranks)
    truth = [float((values <= each).mean()) for each in found]
    # Twice the 99 % bound of one rank: seven ranks are looked at, and the sketch's coin is not seeded.
    assert np.abs(np.array(truth) - ranks).max() < 2 * RANK_ERROR


def test_quantiles_of_few_values_are_exact() -> None:
    """Small windows would show quantiles that no value has."""
    assert quantile(numerical([5, 1, 3]), [0, 0.5, 1]) == [1.0, 3.0, 5.0]
    assert quantile(NumericalSummary(), [0.5]) == []


def test_unseen_words_are_bounded_and_all_counted() -> None:
    """A producer of random words would grow every window until its topic refuses it."""
    values = [f"{'x' * 100}{number:04}" for number in range(50)] + [f"w{number:04}" for number in range(500)] * 2
    summary = categorical([*values, "calm", None])
    assert summary.unseen == 1_050
    assert summary.count == 1_051
    assert summary.counts == {"calm": 1}
    assert len(summary.unseen_counts) == UNSEEN_KEPT
    assert max(map(len, summary.unseen_counts)) <= UNSEEN_LENGTH


@settings(max_examples=25, deadline=None)
@given(
    parts=st.lists(st.lists(st.integers(0, 400).map(str), max_size=200), min_size=2, max_size=5),
    random=st.randoms(use_true_random=False),
)
def test_the_unseen_words_that_are_kept_are_counted_exactly(parts: list[list[str]], random: Any) -> None:
    """Which unseen words are shown, and how often, would depend on the order of merges."""
    values = [value for part in parts for value in part]
    merged = in_pairs([categorical([*part]) for part in parts], random)
    assert isinstance(merged, CategoricalSummary)
    truth = Counter(values)
    assert merged.unseen_counts == {value: truth[value] for value in sorted(truth)[:UNSEEN_KEPT]}


def test_folds_follow_the_features_of_a_spec() -> None:
    """A service would have to know which fold belongs to which feature."""
    number = NumericalFeature(name="wind", limits=LIMITS)
    word = CategoricalFeature(name="sky", categories=WORDS)
    assert fold_for(number).summary() == NumericalSummary()
    assert fold_for(word).summary() == CategoricalSummary()
    assert resume_fold(number, numerical([1.0])).summary() == numerical([1.0])
    assert resume_fold(word, categorical(["calm"])).summary() == categorical(["calm"])


def test_columns_of_two_types_are_refused() -> None:
    """A feature that changed its type would be summarised as nonsense."""
    for a, b in ((numerical([1]), categorical(["calm"])), (categorical(["calm"]), numerical([1]))):
        with pytest.raises(TypeError, match="summarise the column anew"):
            merge(a, b)
    with pytest.raises(TypeError, match="summarise the column anew"):
        resume_fold(NumericalFeature(name="wind"), categorical(["calm"]))


def test_tables_merge_column_by_column() -> None:
    """Windows of different feature groups could not be put together."""
    a: dict[str, ColumnSummary] = {"x": numerical([1]), "y": categorical(["calm"])}
    b: dict[str, ColumnSummary] = {"x": numerical([3]), "z": numerical([5])}
    merged = merge_columns(a, b)
    assert {name: column.count for name, column in merged.items()} == {"x": 2, "y": 1, "z": 1}


@pytest.mark.parametrize("text", ["!!!", "AAAA", "AgEPAAACyAAIAAAA"])
def test_damaged_quantiles_are_refused_in_one_sentence(text: str) -> None:
    """A damaged summary would end in a crash of the sketch library."""
    with pytest.raises(SketchInvalid, match="not a KLL sketch"):
        NumericalFold.from_summary(NumericalSummary(count=1, quantiles=text))


def test_a_fold_for_drift_only_leaves_nothing_out_that_a_distance_needs() -> None:
    """Groups' references, which are folded so, would be something else than the same rows in a window."""
    values = np.append(np.random.default_rng(4).normal(size=5_000), [np.nan, 9.0])
    whole, lean = NumericalFold(Limits(min=-1, max=1)), NumericalFold(Limits(min=-1, max=1), counting=False)
    whole.fold(values)
    lean.fold(values)
    one, other = whole.summary(), lean.summary()
    assert (other.distinct, other.frequent) == ("", ())
    named = ("count", "missing", "out_of_limits", "minimum", "maximum")
    assert [getattr(one, name) for name in named] == [getattr(other, name) for name in named]
    assert (other.mean, other.m2) == pytest.approx((one.mean, one.m2))
    assert quantile(other, [0.1, 0.5, 0.9]) == pytest.approx(quantile(one, [0.1, 0.5, 0.9]), abs=0.15)
