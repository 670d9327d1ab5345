"""What a river model offers to those who explain it.

The linear learners add: an intercept, a weight for each scaled number and each word, and a weight for each product of
two scaled numbers. Such a form, quadratic in the numbers, has Shapley values in closed form: a product of two features
is shared between them in equal parts at every reference row. With z the scaled numbers, b those of a reference row,
w and Q the weights (those of products halved off the diagonal) and E the mean over the reference:

    phi_i = w_i (z_i - E[b_i]) + sum_j Q_ij E[(z_i - b_i)(z_j + b_j)]

which needs no more of the reference than the means of b and of its products. (The two-player case of Shapley 1953,
"A value for n-person games", for each product, and additivity for their sum.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tailrace_models.encoding import Row
from tailrace_models.explaining import Exact, Exactly, Mixing, scales_of
from tailrace_models.river_linear import Linear
from tailrace_models.river_model import RiverModel
from tailrace_models.shapley import Floats, Integers, Mask

SLICE_ROWS = 16


class RiverExplainable:
    """A river model, to be explained."""

    slice_rows = SLICE_ROWS

    def __init__(self, model: RiverModel) -> None:
        self.names = tuple(each.name for each in model.features)
        self.adding_scale, self.answering_scale = scales_of(model.label)
        self._model = model

    def exactly(self, rows: Sequence[Row]) -> Exactly | None:
        """In closed form for the linear learners."""
        linear = self._model.linear()
        return None if linear is None else _Quadratic(self._model, linear, self.names, rows)

    def mixing(self, row: Row, rows: Sequence[Row]) -> Mixing:
        """One row after the other, as river has it."""

        def mixed(chosen: Mask, places: Integers) -> Floats:
            return np.array(
                [
                    self._answer(self._mixed(row, rows[place], mask))
                    for mask, place in zip(chosen.tolist(), places.tolist(), strict=True)
                ]
            )

        return mixed

    def _mixed(self, row: Row, other: Row, chosen: Sequence[bool]) -> Row:
        return {name: (row if mine else other).get(name) for name, mine in zip(self.names, chosen, strict=True)}

    def _answer(self, row: Row) -> float:
        found = self._model.predict(row)
        return found.prediction if found.probability is None else found.probability


class _Quadratic:
    """The formula above, for the weights of one model and the rows of one reference."""

    def __init__(self, model: RiverModel, linear: Linear, names: tuple[str, ...], rows: Sequence[Row]) -> None:
        self._model = model
        self._linear = linear
        self._numbers = [names.index(name) for name in linear.numerical]
        self._words = [(names.index(name), name) for name in linear.words]
        self._features = len(names)
        scaled = np.array([model.scaled_numbers(row) for row in rows]).reshape(len(rows), len(self._numbers))
        self._mean: Floats = scaled.mean(axis=0)
        products = scaled.T @ scaled / len(rows)
        self._of_mean: Floats = linear.products @ self._mean
        self._of_products: Floats = (linear.products * products).sum(axis=1)
        self._word_means = [float(np.mean([linear.word(name, row) for row in rows])) for _, name in self._words]
        self._base = float(
            linear.intercept + linear.weights @ self._mean + self._of_products.sum() + sum(self._word_means)
        )

    def __call__(self, row: Row) -> Exact:
        """The contributions to this row's answer."""
        linear, mean = self._linear, self._mean
        scaled = np.array(self._model.scaled_numbers(row))
        multiplied = linear.products @ scaled
        found = np.zeros(self._features)
        found[self._numbers] = (
            linear.weights * (scaled - mean)
            + scaled * (multiplied + self._of_mean)
            - mean * multiplied
            - self._of_products
        )
        for (place, name), usual in zip(self._words, self._word_means, strict=True):
            found[place] = linear.word(name, row) - usual
        return Exact(self._base, found)
