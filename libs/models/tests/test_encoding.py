"""Rows as matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace_contracts import ModelSpec, parse_spec
from tailrace_models import Encoder, column_names, encode_rows
from tailrace_models.encoding import Row


def spec(*features: dict[str, Any]) -> ModelSpec:
    """A spec with these features, or with a number between two words."""
    few = (
        {"name": "sky", "type": "categorical", "categories": ["blue", "grey"]},
        {"name": "wind", "type": "numerical"},
        {"name": "day", "type": "categorical", "categories": ["mon", "tue", "wed"]},
    )
    return parse_spec({"model": "rain", "owner": "o", "label": {"name": "rain"}, "features": list(features or few)})


def test_columns_stand_in_the_order_of_the_spec() -> None:
    """A network would be served with its columns swapped."""
    assert column_names(spec()) == ("sky=blue", "sky=grey", "wind", "day=mon", "day=tue", "day=wed")
    assert encode_rows(spec(), [{"day": "tue", "wind": 2.5, "sky": "grey"}]).tolist() == [[0, 1, 2.5, 0, 1, 0]]


def test_missing_and_unseen_values_are_told_apart_from_zero() -> None:
    """A missing number would be taken for 0, or an unseen word would stop the service."""
    (row,) = encode_rows(spec(), [{"day": "sun", "wind": None}])
    assert row[[0, 1, 3, 4, 5]].tolist() == [0] * 5
    assert math.isnan(row[2])


def test_no_rows_are_an_empty_matrix() -> None:
    """An empty batch would have no columns and break what comes behind."""
    assert encode_rows(spec(), []).shape == (0, 6)


@given(value=st.one_of(st.floats(), st.booleans(), st.none(), st.integers(-(10**300), 10**300)))
def test_every_number_is_finite_or_missing(value: float | None) -> None:
    """One enormous value would become infinite in 32 bits, and the network would answer NaN."""
    found = encode_rows(spec({"name": "wind", "type": "numerical"}), [{"wind": value}])
    assert found.dtype == np.float32
    assert not np.isinf(found).any()


def test_names_that_look_alike_keep_their_columns() -> None:
    """Two features whose column names are the same text would share one column."""
    alike = spec(
        {"name": "a=b", "type": "numerical"},
        {"name": "a", "type": "categorical", "categories": ["b", "c"]},
    )
    assert encode_rows(alike, [{"a=b": 7, "a": "b"}]).tolist() == [[7, 1, 0]]


@pytest.mark.parametrize("count", [1, 5])
def test_an_encoder_may_be_kept(count: int) -> None:
    """Serving, which keeps the encoder, would see other columns than training."""
    rows: list[Row] = [{"sky": "blue", "wind": float(number), "day": "wed"} for number in range(count)]
    assert (Encoder(spec()).encode(rows) == encode_rows(spec(), rows)).all()
