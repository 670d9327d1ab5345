"""Networks that add: graphs whose output is a sum of one term for each column, found by following the graph.

A linear or logistic regression, with its imputation and scaling before it, gives every column its own function and adds
them up. Whether a graph is of this form is seen by calculating it once more, in 64 bits, while each value keeps apart
what came from which column: `Columns` are values of one column each, `Terms` a sum that still has its terms. A step
that would mix terms otherwise than by adding, such as an activation behind a sum, is none of the steps below, and the
graph is then no sum. A sigmoid, or a softmax over two classes, at the very end is the way from log-odds to
probabilities. What is found is believed only after it has given the same answers as the graph itself
(`OnnxExplainable`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tailrace_models.shapley import Floats

INPUT = "features"


class DoesNotAdd(Exception):  # noqa: N818  # a fact about a graph
    """The graph is not of this form, or has a step that is not known here."""


@dataclass(frozen=True, slots=True)
class Columns:
    """[rows, columns]; each column made of the same column of the input."""

    values: Any


@dataclass(frozen=True, slots=True)
class Terms:
    """A sum for each of `k` outputs: terms [rows, columns, k], and what no column had a part in, [k]."""

    terms: Floats
    rest: Floats


@dataclass(frozen=True, slots=True)
class Classes:
    """Probabilities of two classes: the second one's log-odds."""

    log_odds: Terms


@dataclass(frozen=True, slots=True)
class Probability:
    """A probability: its log-odds."""

    log_odds: Terms


Found = Columns | Terms | Classes | Probability | np.ndarray
"""A value on the way; an array is a constant."""


class Step(NamedTuple):
    """One node of the graph."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


class Sum(NamedTuple):
    """What a graph adds: terms [rows, columns], the rest, and whether the sum is log-odds of a probability."""

    terms: Floats
    rest: float
    log_odds: bool


class AddingGraph:
    """A graph's steps, ready to be followed."""

    def __init__(self, data: bytes, output: str) -> None:
        import onnx

        graph = onnx.load_model_from_string(data).graph
        self._output = output
        self._constants = {
            each.name: np.asarray(onnx.numpy_helper.to_array(each), dtype=np.float64)
            for each in graph.initializer
            if each.data_type != onnx.TensorProto.STRING
        }
        self._steps = [
            Step(
                node.op_type,
                tuple(node.input),
                tuple(node.output),
                {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute},
            )
            for node in graph.node
        ]

    def sum(self, features: Floats) -> Sum:
        """What is added for a matrix [rows, columns]. Raises DoesNotAdd."""
        known: dict[str, Found] = {**self._constants, INPUT: Columns(features)}
        with np.errstate(all="ignore"):
            for step in self._steps:
                self._follow(step, known)
        found = known.get(self._output)
        terms = found.log_odds if isinstance(found, Probability) else found
        if not isinstance(terms, Terms) or terms.terms.shape[2] != 1:
            raise DoesNotAdd(self._output)
        return Sum(terms.terms[:, :, 0], float(terms.rest[0]), isinstance(found, Probability))

    def _follow(self, step: Step, known: dict[str, Found]) -> None:
        try:
            rule = _RULES[step.operator]
            found = rule([known[name] for name in step.inputs if name], step.attributes)
        except (KeyError, ValueError, IndexError, TypeError):
            if self._output in step.outputs:
                raise DoesNotAdd(step.operator) from None
            return  # a step that the output does not need, such as a classifier's label
        known[step.outputs[-1] if step.operator == "LinearClassifier" else step.outputs[0]] = found


# ---------------------------------------------------------------- the steps
#
# Each takes its inputs and attributes and gives its output; ValueError says that it has no rule for these.


def _each(function: Callable[..., Any]) -> Callable[[Sequence[Found], Mapping[str, Any]], Found]:
    """A step that looks at one element of each input at a time: columns stay columns."""

    def rule(inputs: Sequence[Found], _: Mapping[str, Any]) -> Found:
        if all(isinstance(each, np.ndarray) for each in inputs):
            return np.asarray(function(*inputs))
        found = Columns(function(*(_elements(each) for each in inputs)))
        if any(isinstance(each, Columns) and each.values.shape != found.values.shape for each in inputs):
            raise ValueError
        return found

    return rule


def _elements(found: Found) -> Any:
    if isinstance(found, Columns):
        return found.values
    if isinstance(found, np.ndarray) and (found.ndim < 2 or found.shape[0] == 1):
        return found
    raise ValueError


def _same(inputs: Sequence[Found], _: Mapping[str, Any]) -> Found:
    return inputs[0]


def _shaped(inputs: Sequence[Found], _: Mapping[str, Any]) -> Found:
    """Another shape of a single output is still that output."""
    found = inputs[0]
    terms = found.log_odds if isinstance(found, Probability) else found
    if isinstance(terms, Terms) and terms.terms.shape[2] == 1:
        return found
    raise ValueError


def _sum(sign: float) -> Callable[[Sequence[Found], Mapping[str, Any]], Found]:
    columns = _each(np.add if sign > 0 else np.subtract)

    def rule(inputs: Sequence[Found], attributes: Mapping[str, Any]) -> Found:
        first, second = inputs
        if isinstance(first, Terms) and isinstance(second, Terms):
            return Terms(first.terms + sign * second.terms, first.rest + sign * second.rest)
        if isinstance(first, Terms) and isinstance(second, np.ndarray):
            return Terms(first.terms, first.rest + sign * _for_outputs(second, first))
        if isinstance(second, Terms) and isinstance(first, np.ndarray):
            return Terms(sign * second.terms, sign * second.rest + _for_outputs(first, second))
        return columns(inputs, attributes)

    return rule


def _product(power: int) -> Callable[[Sequence[Found], Mapping[str, Any]], Found]:
    columns = _each(np.multiply if power > 0 else np.divide)

    def rule(inputs: Sequence[Found], attributes: Mapping[str, Any]) -> Found:
        first, second = inputs
        if power > 0 and isinstance(second, Terms):
            first, second = second, first
        if isinstance(first, Terms) and isinstance(second, np.ndarray):
            factor = _for_outputs(second, first) ** power
            return Terms(first.terms * factor, first.rest * factor)
        return columns([first, second], attributes)

    return rule


def _for_outputs(constant: Any, terms: Terms) -> Floats:
    """A constant with one element for each output, or one for all."""
    if constant.size not in {1, terms.terms.shape[2]} or (constant.ndim == 2 and constant.shape[0] != 1):
        raise ValueError
    return np.broadcast_to(constant.reshape(-1), terms.rest.shape)


def _weighted(found: Found, weights: Any) -> Terms:
    """A matrix product with weights [columns, k] or [k]."""
    if not isinstance(weights, np.ndarray):
        raise TypeError
    matrix = weights[:, None] if weights.ndim == 1 else weights
    if isinstance(found, Columns):
        return Terms(found.values[:, :, None] * matrix[None], np.zeros(matrix.shape[1]))
    if isinstance(found, Terms):
        return Terms(found.terms @ matrix, found.rest @ matrix)
    raise ValueError


def _matmul(inputs: Sequence[Found], _: Mapping[str, Any]) -> Found:
    return _weighted(inputs[0], inputs[1])


def _gemm(inputs: Sequence[Found], attributes: Mapping[str, Any]) -> Found:
    weights = inputs[1]
    if attributes.get("transA") or not isinstance(weights, np.ndarray):
        raise ValueError
    weights = weights.T if attributes.get("transB") else weights
    found = _weighted(inputs[0], weights * attributes.get("alpha", 1.0))
    if len(inputs) < 3 or not isinstance(inputs[2], np.ndarray):
        return found
    return Terms(found.terms, found.rest + attributes.get("beta", 1.0) * _for_outputs(inputs[2], found))


def _scaler(inputs: Sequence[Found], attributes: Mapping[str, Any]) -> Found:
    offset, scale = np.array(attributes["offset"]), np.array(attributes["scale"])
    return Columns((_elements(inputs[0]) - offset) * scale)


def _regressor(inputs: Sequence[Found], attributes: Mapping[str, Any]) -> Found:
    if attributes.get("post_transform", b"NONE") != b"NONE":
        raise ValueError
    return _of_coefficients(inputs[0], attributes)


def _of_coefficients(found: Found, attributes: Mapping[str, Any]) -> Terms:
    intercepts = np.array(attributes.get("intercepts", (0.0,)), dtype=np.float64)
    weights = np.array(attributes["coefficients"], dtype=np.float64).reshape(len(intercepts), -1).T
    added = _weighted(found, weights)
    return Terms(added.terms, added.rest + intercepts)


def _classifier(inputs: Sequence[Found], attributes: Mapping[str, Any]) -> Found:
    """Of two classes: a row of coefficients each, the first the negative of the second, or both under a softmax."""
    terms, transform = _of_coefficients(inputs[0], attributes), attributes.get("post_transform", b"NONE")
    if transform == b"SOFTMAX":
        return _softmax([terms], {})
    if transform != b"LOGISTIC" or terms.terms.shape[2] != 2:
        raise ValueError
    first, second = terms.terms[:, :, 0], terms.terms[:, :, 1]
    if not (np.allclose(first, -second) and np.allclose(terms.rest[0], -terms.rest[1])):
        raise ValueError
    return Classes(Terms(terms.terms[:, :, 1:], terms.rest[1:]))


def _softmax(inputs: Sequence[Found], _: Mapping[str, Any]) -> Found:
    terms = inputs[0]
    if not isinstance(terms, Terms) or terms.terms.shape[2] != 2:
        raise ValueError
    return Classes(Terms(terms.terms[:, :, 1:] - terms.terms[:, :, :1], terms.rest[1:] - terms.rest[:1]))


def _sigmoid(inputs: Sequence[Found], attributes: Mapping[str, Any]) -> Found:
    if isinstance(inputs[0], Terms):
        if inputs[0].terms.shape[2] != 1:
            raise ValueError
        return Probability(inputs[0])
    return _each(lambda x: 1 / (1 + np.exp(-x)))(inputs, attributes)


def _normalised(inputs: Sequence[Found], attributes: Mapping[str, Any]) -> Found:
    """Two probabilities add up to 1 already."""
    if isinstance(inputs[0], Classes) and attributes.get("norm") == b"L1":
        return inputs[0]
    raise ValueError


def _gather(inputs: Sequence[Found], attributes: Mapping[str, Any]) -> Found:
    """One of two classes."""
    found, index = inputs
    if not isinstance(found, Classes) or not isinstance(index, np.ndarray) or index.size != 1:
        raise ValueError
    if attributes.get("axis", 0) not in {1, -1}:
        raise ValueError
    sign = 1.0 if int(index.reshape(-1)[0]) in {1, -1} else -1.0
    return Probability(Terms(sign * found.log_odds.terms, sign * found.log_odds.rest))


def _constant(_: Sequence[Found], attributes: Mapping[str, Any]) -> Found:
    import onnx

    return np.asarray(onnx.numpy_helper.to_array(attributes["value"]), dtype=np.float64)


_RULES: Mapping[str, Callable[[Sequence[Found], Mapping[str, Any]], Found]] = {
    **dict.fromkeys(("Identity", "Cast", "Dropout"), _same),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Flatten"), _shaped),
    "Constant": _constant,
    "IsNaN": _each(np.isnan),
    "Not": _each(np.logical_not),
    "Where": _each(lambda condition, a, b: np.where(condition != 0, a, b)),
    "Clip": _each(lambda x, low=-np.inf, high=np.inf: np.clip(x, low, high)),
    "Relu": _each(lambda x: np.maximum(x, 0)),
    "Tanh": _each(np.tanh),
    "Exp": _each(np.exp),
    "Log": _each(np.log),
    "Sqrt": _each(np.sqrt),
    "Abs": _each(np.abs),
    "Neg": _each(np.negative),
    "Pow": _each(np.power),
    "Min": _each(np.fmin),
    "Max": _each(np.fmax),
    "Greater": _each(np.greater),
    "Less": _each(np.less),
    "Equal": _each(np.equal),
    "Scaler": _scaler,
    "Add": _sum(1.0),
    "Sub": _sum(-1.0),
    "Mul": _product(1),
    "Div": _product(-1),
    "MatMul": _matmul,
    "Gemm": _gemm,
    "LinearRegressor": _regressor,
    "LinearClassifier": _classifier,
    "Normalizer": _normalised,
    "Softmax": _softmax,
    "Sigmoid": _sigmoid,
    "Gather": _gather,
}
