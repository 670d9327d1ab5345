"""A network for serving: one ONNX graph from raw features to the positive class's probability, or to a number.

The graph has the single input `features`, float32 [rows, columns] as `encode_rows` makes them (NaN where a number is
missing), and a single output, float32 [rows] or [rows, 1]: `probability`, or for a regression `prediction` in the
label's unit. Imputation and scaling are inside. It runs on one thread: the service scales by processes, and a pool of
spinning threads beside an event loop costs more than these small networks gain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from tailrace_contracts.spec import Label, ModelSpec, NumericalLabel
from tailrace_models.answers import Answer, negative
from tailrace_models.encoding import Encoder, Matrix, Row
from tailrace_models.errors import ArtefactCorrupt, ArtefactIncompatible
from tailrace_models.explaining import Explainer, Reference
from tailrace_models.onnx_explaining import OnnxExplainable

INPUT = "features"
LARGEST_SUM_BYTES = 65_536
"""A larger graph has too many weights to be a linear model, and its bytes are not kept to see."""

PROBABILITY, PREDICTION = "probability", "prediction"


class Answers(NamedTuple):
    """Answers as columns: `predictions` int64 [rows], `probabilities` float64 [rows].

    Of a regression: `predictions` float64 [rows], and no probabilities.
    """

    predictions: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64] | None


class OnnxModel:
    """A session on a verified graph, with the encoding of its spec."""

    def __init__(self, session: onnxruntime.InferenceSession, spec: ModelSpec, graph: bytes | None = None) -> None:
        self._session = session
        self._spec = spec
        self._graph = graph
        self._encoder = Encoder(spec)
        self._label = spec.label
        self._answer = _answering(spec.label)

    @classmethod
    def from_bytes(cls, data: bytes, spec: ModelSpec) -> OnnxModel:
        """The model in an ONNX file. Raises ArtefactCorrupt (not a graph) or ArtefactIncompatible (not this spec's)."""
        session = _session(data)
        _check(session, spec)
        return cls(session, spec, data if len(data) <= LARGEST_SUM_BYTES else None)

    def predict_matrix(self, features: Matrix) -> Answers:
        """Answers for a matrix that `encode_rows` made."""
        label = self._label
        found = self._run(features) if len(features) else np.zeros(0)
        if isinstance(label, NumericalLabel):
            return Answers(found.clip(label.limits.min, label.limits.max), None)
        probabilities = np.nan_to_num(found, nan=0.5).clip(0.0, 1.0)
        return Answers(np.where(probabilities > 0.5, label.positive, negative(label)), probabilities)

    def _run(self, features: Matrix) -> npt.NDArray[np.float64]:
        (output,) = self._session.run([output_of(self._label)], {INPUT: features})
        return np.asarray(output, dtype=np.float64).reshape(-1)

    def predict_many(self, rows: Sequence[Row]) -> Answers:
        """Answers for rows of features, as columns."""
        return self.predict_matrix(self._encoder.encode(rows))

    def predict(self, rows: Sequence[Row]) -> list[Answer]:
        """Answers for rows of features, one for each."""
        if not rows:
            return []
        return list(map(self._answer, self._run(self._encoder.encode(rows)).tolist()))

    def encoded(self, rows: Sequence[Row]) -> Matrix:
        """Rows of features as the graph takes them."""
        return self._encoder.encode(rows)

    def outputs(self, features: Matrix) -> npt.NDArray[np.float64]:
        """What the graph answers for a matrix that `encoded` made, as it is."""
        return self._run(features)

    def answers(self, features: Matrix) -> npt.NDArray[np.float64]:
        """The probabilities, or the numbers, that are served for such a matrix."""
        found = self.predict_matrix(features)
        return np.asarray(found.predictions if found.probabilities is None else found.probabilities, np.float64)

    def explainer(self, reference: Reference | None = None) -> Explainer | None:
        """What explains its answers against these rows; None without any."""
        if reference is None or not reference.rows:
            return None
        return Explainer(OnnxExplainable(self, self._graph, self._spec, output_of(self._label)), reference)


def _answering(label: Label) -> Callable[[float], Answer]:
    """From one output to one answer, as `predict_matrix` does for many: numpy costs more than that for a few."""
    if isinstance(label, NumericalLabel):
        least, most = label.limits.min, label.limits.max
        return lambda found: Answer(min(max(found, least), most))
    positive, other = label.positive, negative(label)

    def answer(found: float) -> Answer:
        probability = 0.5 if math.isnan(found) else min(max(found, 0.0), 1.0)
        return Answer(positive if probability > 0.5 else other, probability)

    return answer


def output_of(label: Label) -> str:
    """The graph's output for a label of this kind."""
    return PREDICTION if isinstance(label, NumericalLabel) else PROBABILITY


def _session(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  # onnxruntime's own classes share no other base
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtefactCorrupt(
            f"ONNX artefact of {len(data)} bytes cannot be read ({first_line}); train the version again"
        ) from None


def _check(session: onnxruntime.InferenceSession, spec: ModelSpec) -> None:
    columns = len(Encoder(spec).columns)
    inputs = [(each.name, each.type, len(each.shape), each.shape[-1:]) for each in session.get_inputs()]
    if inputs != [(INPUT, "tensor(float)", 2, [columns])]:
        raise ArtefactIncompatible(
            f"ONNX artefact's inputs {inputs} do not fit model {spec.model!r}: expected one, "
            f"{INPUT!r}, tensor(float) [rows, {columns}]; train a version for the present spec"
        )
    outputs, expected = [(each.name, each.type) for each in session.get_outputs()], output_of(spec.label)
    if (expected, "tensor(float)") not in outputs:
        raise ArtefactIncompatible(
            f"ONNX artefact's outputs {outputs} do not fit model {spec.model!r}: expected {expected!r}, tensor(float); "
            "train a version for the present spec"
        )
