"""What a network offers to those who explain it: its sum, where it is one (`onnx_adding`), and answers to mixed rows.

Mixed rows are made of encoded columns, many at a time, and answered in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tailrace_contracts.spec import ModelSpec, NumericalFeature
from tailrace_models.encoding import Row
from tailrace_models.explaining import Exact, Exactly, Mixing, scales_of
from tailrace_models.onnx_adding import AddingGraph, DoesNotAdd, Sum
from tailrace_models.shapley import Floats, Integers, Mask

SLICE_ROWS = 256

TOLERANCE = 1e-4
"""By how much a graph's answers, in 32 bits, may differ from those of the sum that is believed to be in it."""


class Network(Protocol):
    """A graph that answers, as far as its explanations ask it."""

    def encoded(self, rows: Sequence[Row]) -> npt.NDArray[np.float32]:
        """Rows of features as the graph takes them."""
        ...

    def outputs(self, features: npt.NDArray[np.float32]) -> Floats:
        """What the graph answers for a matrix that `encoded` made, as it is."""
        ...

    def answers(self, features: npt.NDArray[np.float32]) -> Floats:
        """The probabilities, or the numbers, that are served for such a matrix."""
        ...


class OnnxExplainable:
    """A network, to be explained. `graph` is None where it is too large to be a sum of columns."""

    slice_rows = SLICE_ROWS

    def __init__(self, model: Network, graph: bytes | None, spec: ModelSpec, output: str) -> None:
        self.names = spec.feature_names
        self.adding_scale, self.answering_scale = scales_of(spec.label)
        self._model = model
        self._graph = graph
        self._output = output
        self._feature_of = _feature_of(spec)

    def exactly(self, rows: Sequence[Row]) -> Exactly | None:
        """By the terms of the sum, where there is one and it answers as the graph does."""
        if self._graph is None:
            return None
        graph, encoded = AddingGraph(self._graph, self._output), self._model.encoded(rows)
        try:
            found = graph.sum(encoded.astype(np.float64))
        except DoesNotAdd:
            return None
        if found.log_odds is not (self.adding_scale == "log-odds") or not self._agrees(found, encoded):
            return None
        return _Adding(self._model, graph, found, self._feature_of)

    def _agrees(self, found: Sum, encoded: npt.NDArray[np.float32]) -> bool:
        total = found.terms.sum(axis=1) + found.rest
        expected = self._model.outputs(encoded)
        with np.errstate(over="ignore"):
            answers = 1 / (1 + np.exp(-total)) if found.log_odds else total
        return bool(np.all(np.abs(answers - expected) <= TOLERANCE * np.maximum(1.0, np.abs(expected))))

    def mixing(self, row: Row, rows: Sequence[Row]) -> Mixing:
        """Whole columns at once."""
        mine, others = self._model.encoded([row]), self._model.encoded(rows)

        def mixed(chosen: Mask, places: Integers) -> Floats:
            return self._model.answers(np.where(chosen[:, self._feature_of], mine, others[places]))

        return mixed


class _Adding:
    """Contributions by the terms of a sum: those of the row less their mean over the reference."""

    def __init__(self, model: Network, graph: AddingGraph, reference: Sum, feature_of: Integers) -> None:
        self._model = model
        self._graph = graph
        self._usual = reference.terms.mean(axis=0)
        self._base = float(self._usual.sum() + reference.rest)
        self._feature_of = feature_of

    def __call__(self, row: Row) -> Exact:
        """The contributions to this row's answer; the columns of a word are one feature."""
        terms = self._graph.sum(self._model.encoded([row]).astype(np.float64)).terms[0]
        found = np.bincount(self._feature_of, terms - self._usual, self._feature_of[-1] + 1)
        return Exact(self._base, found.astype(np.float64))


def _feature_of(spec: ModelSpec) -> Any:
    """Which feature each column belongs to."""
    widths = [1 if isinstance(each, NumericalFeature) else len(each.categories) for each in spec.features]
    return np.repeat(np.arange(len(widths)), widths)
