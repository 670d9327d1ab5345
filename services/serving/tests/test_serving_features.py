"""The features' rules: which values are taken, changed or refused, and in which words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace_serving.domain.features import FeatureRules
from tailrace_serving.domain.refusal import Refused
from tailrace_serving.testing import RAIN, rain_spec

RULES = FeatureRules(rain_spec())


def test_good_row_is_seen_as_it_was_asked() -> None:
    """If it failed, a value within its limits would reach the model changed."""
    row = RULES.row(RAIN)
    assert row.asked == RAIN
    assert row.seen is row.asked


def test_policies_change_what_the_model_sees_and_not_what_is_recorded() -> None:
    """If it failed, a clipped sensor fault would be hidden from the statistics, or reach the model."""
    row = RULES.row({**RAIN, "pressure": 9000, "wind": -4})
    assert row.asked == {**RAIN, "pressure": 9000.0, "wind": -4.0}
    assert row.seen == {**RAIN, "pressure": 1100.0, "wind": None}


@pytest.mark.parametrize("policy", ["null", "flag"])
@pytest.mark.parametrize("given", [{}, {"wind": None}, {"sky": None}])
def test_missing_value_is_null_where_the_spec_allows_it(policy: str, given: dict[str, object]) -> None:
    """If it failed, a feature that may be missing could not be left out, or ingestion would refuse the event without it."""
    wind = {"type": "numerical", "name": "wind", "on_missing": policy}
    sky = {"type": "categorical", "name": "sky", "categories": ["clear"], "on_missing": policy}
    row = FeatureRules(rain_spec(features=[wind, sky])).row(given)
    assert row.asked == {"wind": None, "sky": None}
    assert row.seen is row.asked


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        ({"humidity": 940}, "unacceptable", "feature 'humidity' is 940, expected 0 to 100"),
        ({"humidity": None}, "unacceptable", "feature 'humidity' is missing, expected a number"),
        ({"humidity": math.nan}, "unacceptable", "feature 'humidity' is NaN, expected a finite number"),
        ({"pressure": math.inf}, "unacceptable", "feature 'pressure' is inf, expected a finite number"),
        ({"humidity": 10**400}, "unacceptable", "feature 'humidity' is too large for a float64"),
        ({"humidity": "wet"}, "malformed", "feature 'humidity' is 'wet', expected a number"),
        ({"sky": "green"}, "unacceptable", "feature 'sky' is 'green', expected one of 'clear', 'clouded'"),
        ({"sky": 7}, "malformed", "feature 'sky' is 7, expected a string"),
        ({"sky": None}, "unacceptable", "feature 'sky' is missing, expected a string"),
        ({"humidty": 4}, "malformed", "feature 'humidty' is unknown; model 'rain' expects 'humidity', 'pressure'"),
    ],
)
def test_refusal_names_feature_found_and_expected(change: dict[str, object], kind: str, sentence: str) -> None:
    """If it failed, a caller could not tell from the answer what to correct."""
    with pytest.raises(Refused) as refused:
        RULES.row({**RAIN, **change}, "row 3: ")
    assert refused.value.kind == kind
    assert refused.value.sentence.startswith(f"row 3: {sentence}")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_clipped_value_lies_within_the_limits(value: float) -> None:
    """If it failed, a value out of limits could reach a model whose spec says clip."""
    seen = RULES.row({**RAIN, "pressure": value}).seen["pressure"]
    assert isinstance(seen, float)
    assert 800 <= seen <= 1100
    assert seen == value or not 800 <= value <= 1100


def test_misspelt_feature_is_told_before_the_missing_one() -> None:
    """If it failed, a typing error would be told as a missing feature."""
    row = {("humidty" if name == "humidity" else name): value for name, value in RAIN.items()}
    with pytest.raises(Refused, match="feature 'humidty' is unknown"):
        RULES.row(row)


def test_example_row_is_accepted() -> None:
    """If it failed, good artefacts would be refused because their warm-up row is bad."""
    assert RULES.row(RULES.example()).seen == RULES.example()
