"""Protected groups, intervals, references."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tailrace_contracts import ModelSpec, parse_spec
from tailrace_contracts.events import NumericalSummary
from tailrace_statistics import (
    GroupCounts,
    Reference,
    ReferenceInvalid,
    count_groups,
    group_rates,
    merge_groups,
    selection_gap,
    wilson_interval,
)

example = st.tuples(st.sampled_from(["f", "m", "x", None]), st.sampled_from([0, 1]), st.sampled_from([0, 1]))


def spec() -> ModelSpec:
    """One number, one word, classes 3 and 5."""
    return parse_spec(
        {
            "model": "rain",
            "owner": "weather",
            "features": [
                {"name": "wind", "type": "numerical", "on_missing": "flag"},
                {"name": "sky", "type": "categorical", "categories": ["blue", "grey"]},
            ],
            "label": {"name": "rain", "classes": [3, 5], "positive": 5},
        }
    )


def columns(examples: list[tuple[str | None, int, int]]) -> Any:
    """Groups, predictions and labels as parallel columns."""
    return zip(*examples, strict=True) if examples else ([], [], [])


@settings(max_examples=50, deadline=None)
@given(examples=st.lists(example, max_size=60), cut=st.integers(0, 60))
def test_group_counts_are_those_of_a_plain_loop(examples: list[tuple[str | None, int, int]], cut: int) -> None:
    """Fairness would be judged on wrong counts, or counts would depend on the batches."""
    counts = merge_groups(count_groups(*columns(examples[:cut])), count_groups(*columns(examples[cut:])))
    for group in ("f", "m", "x"):
        pairs = [(prediction, label) for name, prediction, label in examples if name == group]
        expected = GroupCounts(
            tp=pairs.count((1, 1)), fp=pairs.count((1, 0)), tn=pairs.count((0, 0)), fn=pairs.count((0, 1))
        )
        assert counts.get(group, GroupCounts()) == expected
        assert expected.examples == len(pairs)
    assert "None" not in counts


def test_rates_are_the_textbooks() -> None:
    """The console would show swapped rates."""
    (rates,) = group_rates("SEX", {"1": GroupCounts(tp=30, fp=10, tn=40, fn=20)})
    assert (rates.attribute, rates.group, rates.examples) == ("SEX", "1", 100)
    assert rates.selection_rate == pytest.approx(0.4)
    assert rates.true_positive_rate == pytest.approx(0.6)
    assert rates.false_positive_rate == pytest.approx(0.2)
    assert rates.accuracy == pytest.approx(0.7)


def test_a_rate_without_examples_is_unknown() -> None:
    """A group without positives would show a true positive rate of 0."""
    (rates,) = group_rates("SEX", {"1": GroupCounts(tn=5)})
    assert rates.true_positive_rate is None
    assert rates.false_positive_rate == 0


def test_the_positive_class_need_not_be_one() -> None:
    """Models with other classes would have every selection counted as none."""
    assert count_groups(["f", "f"], [5, 3], [5, 5], positive=5) == {"f": GroupCounts(tp=1, fn=1)}


def test_the_gap_leaves_out_small_groups() -> None:
    """One person in a group of their own would raise the fairness alarm."""
    rates = group_rates(
        "RACE", {"a": GroupCounts(tp=60, tn=40), "b": GroupCounts(tp=45, tn=55), "c": GroupCounts(tn=1)}
    )
    assert selection_gap(rates, 50) == pytest.approx(0.15)
    assert selection_gap(rates) == pytest.approx(0.6)
    assert selection_gap(rates[:1]) == 0


@pytest.mark.parametrize(("successes", "examples"), [(0, 10), (10, 10), (75, 100), (1, 3), (822, 1_000)])
def test_wilsons_interval_is_scipys(successes: int, examples: int) -> None:
    """Accuracies would be shown with wrong intervals."""
    truth = stats.binomtest(successes, examples).proportion_ci(method="wilson")
    assert tuple(wilson_interval(successes, examples)) == pytest.approx((truth.low, truth.high))
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_a_reference_says_what_the_rows_were() -> None:
    """Drift would be measured against something else than the training set."""
    rows = [{"wind": float(number), "sky": "blue" if number % 4 else "grey"} for number in range(2_000)]
    reference = Reference.build(spec(), rows, labels=[5, 3, 3, 3] * 500)
    assert reference.examples == 2_000
    assert reference.label_rate == pytest.approx(0.25)
    wind, sky = reference.columns["wind"], reference.columns["sky"]
    assert isinstance(wind, NumericalSummary)
    assert wind.mean == pytest.approx(np.arange(2_000).mean())
    assert sky.model_dump()["counts"] == {"blue": 1_500, "grey": 500}
    assert len(reference.sample) == 500
    assert [row["wind"] for row in reference.sample[:3]] == [0.0, 4.0, 8.0]


def test_a_reference_comes_back_from_its_bytes() -> None:
    """Monitoring could not read what training wrote."""
    reference = Reference.build(spec(), [{"wind": 1e300, "sky": "blue"}, {"wind": None, "sky": "?"}])
    assert Reference.from_bytes(reference.to_bytes()) == reference
    assert reference.label_rate is None


def test_a_reference_of_tomorrow_is_readable() -> None:
    """A monitoring that is upgraded last would lose all references."""
    reference = Reference.build(spec(), [])
    document = json.loads(reference.to_bytes()) | {"later": 1}
    assert Reference.from_bytes(json.dumps(document).encode()) == reference


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"model": 3}'])
def test_damaged_references_are_refused_in_one_sentence(data: bytes) -> None:
    """A broken artefact would end in a page of validation errors."""
    with pytest.raises(ReferenceInvalid, match=r"^reference of \d+ bytes: .*train the version again$"):
        Reference.from_bytes(data)
