"""Distinct counts and frequent values: within their published bounds, whatever the split."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace_contracts.events import NumericalSummary
from tailrace_statistics import (
    DISTINCT_ERROR,
    CategoricalFold,
    NumericalFold,
    SketchInvalid,
    distinct_values,
    merge_all,
)
from tailrace_statistics.distinct import REGISTERS, empty, estimate, fold, from_text, hashed, to_text
from tailrace_statistics.frequent import KEPT, Frequent


def summarised(values: list[float]) -> NumericalSummary:
    """The summary of one batch."""
    column = NumericalFold()
    column.fold(values)
    return column.summary()


@pytest.mark.parametrize("distinct", [0, 1, 10, 500, 3_000, 50_000, 400_000])
def test_distinct_counts_keep_their_standard_error(distinct: int) -> None:
    """A column of ids could not be told from one of a few codes, or a console show half the truth."""
    errors = []
    for seed in range(20 if distinct < 10_000 else 4):
        registers, values = empty(), np.random.default_rng(seed).normal(size=distinct)
        for _ in range(2):
            fold(registers, hashed(values))
        errors.append(estimate(registers) - distinct)
    root_mean_square = float(np.sqrt(np.mean(np.square(errors))))
    assert root_mean_square <= 2 * DISTINCT_ERROR * distinct


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 50).map(float), max_size=60), min_size=1, max_size=6))
def test_any_split_gives_the_same_distinct_count(parts: list[list[float]]) -> None:
    """The number of different values would grow with the number of partitions."""
    whole = summarised([value for part in parts for value in part])
    merged = merge_all([summarised(part) for part in parts])
    assert isinstance(merged, NumericalSummary)
    assert merged.distinct == whole.distinct
    different = len({value for part in parts for value in part})
    assert distinct_values(merged) == pytest.approx(different, abs=1 + 4 * DISTINCT_ERROR * different)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 200), max_size=80), min_size=1, max_size=8))
def test_frequent_values_keep_their_bound(parts: list[list[int]]) -> None:
    """A default value that floods a feature would be missed, or one be named that hardly ever came."""
    summaries = [summarised([float(value) for value in part]) for part in parts]
    merged = merge_all(summaries)
    assert isinstance(merged, NumericalSummary)
    truth = Counter(float(value) for part in parts for value in part)
    assert merged.frequent_error <= merged.count / (KEPT + 1)
    found = {float(each.value): each.count for each in merged.frequent}
    assert len(found) <= KEPT
    assert all(count <= truth[value] <= count + merged.frequent_error for value, count in found.items())
    assert {value for value, count in truth.items() if count > merged.frequent_error} <= found.keys()


def test_a_column_without_repetitions_has_no_frequent_values_and_almost_no_error() -> None:
    """Each batch of a continuous feature would cost time for values that nobody asks for."""
    frequent = Frequent()
    for seed in range(10):
        frequent.fold(np.sort(np.random.default_rng(seed).normal(size=8_192)))
    assert (frequent.counts, frequent.error) == ({}, 10)


def test_different_unseen_words_are_counted() -> None:
    """A producer that sends an id in the place of a category would look like one new category."""
    column = CategoricalFold(["calm"])
    column.fold([f"w{number}" for number in range(2_000)] * 2 + ["calm"])
    summary = column.summary()
    assert summary.unseen == 4_000
    assert distinct_values(summary) == pytest.approx(2_001, rel=4 * DISTINCT_ERROR)
    assert distinct_values(merge_all([summary, summary])) == distinct_values(summary)


def test_a_long_column_in_batches_has_the_registers_of_the_whole() -> None:
    """What is passed over because it cannot raise a register would be missing from the count."""
    values = np.random.default_rng(5).normal(size=200_000)
    whole, parts = empty(), empty()
    fold(whole, hashed(values))
    for part in np.array_split(values, 100):
        fold(parts, hashed(part))
    assert parts.min() > 0
    assert np.array_equal(whole, parts)


def test_zeros_of_either_sign_are_one_value() -> None:
    """A column of zeros would have two values."""
    assert round(distinct_values(summarised([0.0, -0.0]))) == 1


def test_registers_survive_text() -> None:
    """After a restart the count of different values would begin anew."""
    registers = empty()
    fold(registers, hashed(np.arange(1_000.0)))
    assert np.array_equal(from_text(to_text(registers)), registers)
    assert (to_text(empty()), from_text("").sum()) == ("", 0)
    assert len(to_text(registers)) < REGISTERS


@pytest.mark.parametrize("text", ["!!!", "AAAA", "eJxjYAAAAAEAAQ=="])
def test_damaged_distinct_counts_are_refused_in_one_sentence(text: str) -> None:
    """A damaged summary would stop the aggregation with a traceback."""
    with pytest.raises(SketchInvalid, match="not a distinct count"):
        from_text(text)
