"""Shapley values by sampling, as laws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace_models import shapley
from tailrace_models.shapley import Floats

Model = Callable[[Floats], Floats]
"""Outputs of a matrix [rows, features]."""

numbers = st.floats(-100, 100, allow_subnormal=False)


def sampled(model: Model, row: Floats, reference: Floats, permutations: int = 40, seed: int = 7) -> shapley.Sampled:
    """The explanation of a row, with as many of the reference's rows as these permutations reach."""
    rows = reference[shapley.spread(len(reference), permutations)]
    asked = shapley.walks(len(row), len(rows), permutations, seed)
    return shapley.estimated(asked, model(np.where(asked.chosen, row, rows[asked.places])))


def by_definition(model: Model, row: Floats, reference: Floats) -> Floats:
    """Shapley values over all coalitions (Shapley 1953)."""
    count = len(row)

    def worth(coalition: tuple[int, ...]) -> float:
        mixed = reference.copy()
        mixed[:, list(coalition)] = row[list(coalition)]
        return float(model(mixed).mean())

    found = np.zeros(count)
    for feature in range(count):
        others = [each for each in range(count) if each != feature]
        for size in range(count):
            weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            for coalition in itertools.combinations(others, size):
                found[feature] += weight * (worth((*coalition, feature)) - worth(coalition))
    return found


def bumpy(rows: Floats) -> Floats:
    """Something with interactions of all features."""
    return np.asarray(np.tanh(rows.prod(axis=1) / 50 + rows.sum(axis=1) / 20) + (rows[:, 0] > rows[:, -1]))


ORDERS = [[0, 4, 2, 3, 1], [1, 3, 2, 4, 0], [4, 3, 2, 0, 1], [1, 0, 2, 3, 4]]


@st.composite
def questions(draw: st.DrawFn) -> tuple[Floats, Floats]:
    """A row and a reference with the same features."""
    features, rows = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    line = st.lists(numbers, min_size=features, max_size=features)
    return np.array(draw(line)), np.array(draw(st.lists(line, min_size=rows, max_size=rows)))


@settings(deadline=None)
@given(questions(), st.integers(1, 60), st.integers(0, 2**64 - 1))
def test_contributions_add_up_to_the_output_less_the_base_value(
    question: tuple[Floats, Floats], permutations: int, seed: int
) -> None:
    """A decision's parts would not be the whole of it."""
    row, reference = question
    found = sampled(bumpy, row, reference, permutations, seed)
    used = reference[shapley.spread(len(reference), permutations)]
    assert found.output == bumpy(row[None])[0]
    assert found.base_value == pytest.approx(bumpy(used).mean(), rel=1e-9, abs=1e-12)
    assert found.base_value + found.contributions.sum() == pytest.approx(found.output, rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(questions(), st.integers(0, 2**32))
def test_a_feature_that_does_not_matter_contributes_nothing(question: tuple[Floats, Floats], seed: int) -> None:
    """A person would be told that something counted which did not."""
    row, reference = question
    found = sampled(lambda rows: np.asarray(rows[:, -1] ** 2), row, reference, seed=seed)
    assert np.all(found.contributions[:-1] == 0)
    assert np.all(found.standard_errors[:-1][~np.isnan(found.standard_errors[:-1])] == 0)


@settings(deadline=None)
@given(questions(), st.integers(0, 2**32))
def test_features_that_do_the_same_contribute_the_same(question: tuple[Floats, Floats], seed: int) -> None:
    """Two equal reasons would be given unequal weight."""
    row, reference = question
    twice, twins = np.append(row, row[0]), np.column_stack([reference, reference[:, 0]])
    found = sampled(
        lambda rows: np.asarray(rows[:, 0] * rows[:, -1] + rows[:, 0] + rows[:, -1]), twice, twins, seed=seed
    )
    assert found.contributions[0] == pytest.approx(found.contributions[-1], rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(questions(), st.integers(0, 2**32))
def test_sums_and_products_of_two_features_are_exact(question: tuple[Floats, Floats], seed: int) -> None:
    """Walking back and forth would not do what it is for."""
    row, reference = question
    weights = np.linspace(-1, 2, len(row) ** 2).reshape(len(row), -1)

    def quadratic(rows: Floats) -> Floats:
        return np.asarray(rows @ weights[0] + np.einsum("ri,ij,rj->r", rows, weights, rows))

    found = sampled(quadratic, row, reference, 2 * len(reference), seed)
    scale = max(1.0, float(np.abs(quadratic(np.vstack([row, reference]))).max()))
    assert found.contributions / scale == pytest.approx(by_definition(quadratic, row, reference) / scale, abs=1e-9)


@settings(deadline=None, max_examples=20)
@given(questions())
def test_many_walks_come_to_the_definition(question: tuple[Floats, Floats]) -> None:
    """Estimates would be of something else than Shapley values."""
    row, reference = question
    found = sampled(bumpy, row, reference, 4_000)
    errors = np.nan_to_num(found.standard_errors)
    assert np.all(np.abs(found.contributions - by_definition(bumpy, row, reference)) <= 6 * errors + 0.02)


def test_the_same_question_gets_the_same_answer() -> None:
    """An explanation could not be checked by making it again, by anyone, in any year."""
    asked = shapley.walks(5, 2, 8, 2**40 + 1)
    assert asked.orders[:4].tolist() == ORDERS
    assert np.array_equal(asked.orders[1::2], asked.orders[::2, ::-1])
    assert not np.array_equal(asked.orders, shapley.walks(5, 2, 8, 1).orders)


def test_how_much_the_model_is_asked_is_known_before() -> None:
    """A request could cost more than its limit."""
    for features, rows, permutations in itertools.product((1, 2, 7), (1, 3, 100), (1, 2, 32, 250)):
        used = len(shapley.spread(rows, permutations))
        asked = shapley.walks(features, used, permutations, 0)
        assert len(asked.chosen) == len(asked.places) == shapley.mixed_rows(features, rows, permutations)
        assert len(asked.orders) == shapley.walked(rows, permutations)
