"""The Open Inference Protocol, version 2, over JSON: requests to questions, answers to responses, models to metadata.

One named tensor for each feature, of shape [n] or [n, 1], its data flat or nested: any numeric datatype or BOOL for a
numerical feature, BYTES for a categorical one; `null` where a value is missing. Out come `prediction` INT64,
`probability` FP64 and `prediction_id` BYTES, each [n]; of a regression `prediction` is FP64 and there is no
`probability`. Values that travel as bytes are `binary`'s business; here they are in `data` already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tailrace_contracts.spec import CategoricalFeature, ModelSpec
from tailrace_serving.domain.arms import ArmAnswer, Arms, Member
from tailrace_serving.domain.features import FeatureRules, Row, listed
from tailrace_serving.domain.question import Question, entity, identifiers, moment
from tailrace_serving.domain.refusal import Refused, brief

CLASS_OUTPUTS = {"prediction": "INT64", "probability": "FP64", "prediction_id": "BYTES"}
NUMBER_OUTPUTS = {"prediction": "FP64", "prediction_id": "BYTES"}

_ONE = [1]
_WORDS: frozenset[type] = frozenset({str, type(None)})
_TYPES: dict[str, frozenset[type]] = {
    "BYTES": _WORDS,
    "BOOL": frozenset({bool, type(None)}),
    **dict.fromkeys(("FP16", "BF16", "FP32", "FP64"), frozenset({float, int, type(None)})),
    **dict.fromkeys(
        ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"), frozenset({int, type(None)})
    ),
}
"""What the JSON of each datatype's values is read as."""


class Parameters(msgspec.Struct):
    """The request parameters that mean something here; others are ignored, as the protocol asks."""

    prediction_id: Any = None
    prediction_ids: Any = None
    entity: Any = None
    time: Any = None
    binary_data_output: bool | None = None


class TensorParameters(msgspec.Struct):
    """How an input's values come."""

    binary_data_size: int | None = None


class Tensor(msgspec.Struct):
    """One input."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: TensorParameters | None = None


class OutputParameters(msgspec.Struct):
    """How the caller wants an output's values."""

    binary_data: bool | None = None


class WantedOutput(msgspec.Struct):
    """One output that the caller asks for."""

    name: str
    parameters: OutputParameters | None = None


class InferRequest(msgspec.Struct):
    """The body of an inference request."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[WantedOutput] | None = None


def question(
    request: InferRequest, rules: FeatureRules, max_rows: int, more_outputs: Mapping[str, str] | None = None
) -> Question:
    """The question in a request, which may ask for more outputs than those of an inference. Raises Refused."""
    if request.outputs is not None:
        _check_outputs(request.outputs, {**outputs_of(rules.spec), **(more_outputs or {})})
    plain = _plain_row(request.inputs, rules)
    rows = _rows(request.inputs, rules, max_rows) if plain is None else [rules.row(plain)]
    asked = request.parameters
    if asked is None:
        return Question(rows)
    return Question(
        rows,
        identifiers(asked.prediction_id, asked.prediction_ids, len(rows), "parameters: "),
        entity(asked.entity, "parameters: "),
        moment(asked.time, "parameters: "),
    )


def _plain_row(tensors: list[Tensor], rules: FeatureRules) -> dict[str, Any] | None:
    """The row in what is asked mostly: one FP64 for each feature. None where anything is otherwise, right or wrong."""
    row: dict[str, Any] = {}
    for tensor in tensors:
        data = tensor.data
        if (
            data is None
            or len(data) != 1
            or type(data[0]) is not float
            or tensor.datatype != "FP64"
            or tensor.shape != _ONE
            or tensor.name not in rules.numbers
        ):
            return None
        row[tensor.name] = data[0]
    return row if len(row) == len(tensors) > 0 else None


def _rows(tensors: list[Tensor], rules: FeatureRules, max_rows: int) -> list[Row]:
    count = rows_of(tensors, max_rows)
    columns: dict[str, list[Any]] = {}
    for tensor in tensors:
        if tensor.name in columns:
            raise Refused("malformed", f"input {brief(tensor.name)} is given twice, expected each feature once")
        columns[tensor.name] = _column(tensor, count, rules)
    if count == 1:
        return [rules.row({name: column[0] for name, column in columns.items()})]
    return [
        rules.row({name: column[index] for name, column in columns.items()}, f"row {index}: ") for index in range(count)
    ]


def rows_of(tensors: list[Tensor], max_rows: int) -> int:
    """The number of rows that all inputs have. Raises Refused."""
    if not tensors:
        raise Refused("malformed", "inputs is empty, expected one tensor for each feature")
    counts: dict[int, str] = {}
    for tensor in tensors:
        shape = tensor.shape
        if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)) or shape[0] < 1:
            raise Refused(
                "malformed",
                f"input {brief(tensor.name)} has shape {brief(shape)}, expected [n] or [n, 1] with n of 1 or more",
            )
        counts.setdefault(shape[0], tensor.name)
    if len(counts) > 1:
        (one, name), (other, other_name), *_ = counts.items()
        raise Refused(
            "malformed",
            f"input {brief(other_name)} has {brief(other)} rows and {brief(name)} has {brief(one)}, expected the same number",
        )
    count = next(iter(counts))
    check_rows(count, max_rows)
    return count


def check_rows(count: int, max_rows: int) -> None:
    """Refuse more rows than one request may have."""
    if count > max_rows:
        raise Refused(
            "too-large", f"the request has {brief(count)} rows, expected at most {max_rows}; send several requests"
        )


def _column(tensor: Tensor, count: int, rules: FeatureRules) -> list[Any]:
    feature = rules.specs.get(tensor.name)
    if feature is None:
        raise rules.unknown(tensor.name)
    data = tensor.data
    if data is None:
        raise Refused(
            "malformed", f"input {brief(tensor.name)} has no data, expected {count} values for shape {tensor.shape}"
        )
    if data and type(data[0]) is list:
        data = [_alone(each, tensor) for each in data]
    if len(data) != count:
        raise Refused(
            "malformed", f"input {brief(tensor.name)} has {len(data)} values, expected {count} for shape {tensor.shape}"
        )
    words = isinstance(feature, CategoricalFeature)
    types = _TYPES.get(tensor.datatype)
    if types is None or words is not (types is _WORDS):
        expected = "BYTES" if words else "FP64, FP32, INT64, INT32 or BOOL"
        raise Refused(
            "malformed", f"input {brief(tensor.name)} has datatype {brief(tensor.datatype)}, expected {expected}"
        )
    for value in data:
        if type(value) not in types:
            raise Refused(
                "malformed",
                f"input {brief(tensor.name)} holds {brief(value)}, expected data of datatype {tensor.datatype}",
            )
    return data


def _alone(value: Any, tensor: Tensor) -> Any:
    if not isinstance(value, list) or len(value) != 1 or isinstance(value[0], list):
        raise Refused("malformed", f"input {brief(tensor.name)} is nested otherwise than its shape {tensor.shape} says")
    return value[0]


def outputs_of(spec: ModelSpec) -> dict[str, str]:
    """The names and datatypes of what a model answers."""
    return NUMBER_OUTPUTS if spec.task == "regression" else CLASS_OUTPUTS


def _check_outputs(wanted: list[WantedOutput], known: Mapping[str, str]) -> None:
    seen: set[str] = set()
    for output in wanted:
        if output.name not in known:
            raise Refused("malformed", f"output {brief(output.name)} is unknown, expected {listed(tuple(known))}")
        if output.name in seen:
            raise Refused("malformed", f"output {output.name!r} is asked for twice, expected each once")
        seen.add(output.name)


def response(
    request: InferRequest, arms: Arms, served: Member, answers: Sequence[ArmAnswer], ids: Sequence[str]
) -> dict[str, Any]:
    """The body of an inference response."""
    columns: dict[str, Sequence[Any]] = {
        "prediction": [each.prediction for each in answers],
        "probability": [each.probability for each in answers],
        "prediction_id": ids,
    }
    datatypes = outputs_of(arms.spec)
    names = [each.name for each in request.outputs if each.name in datatypes] if request.outputs else list(datatypes)
    body: dict[str, Any] = {
        "model_name": arms.model,
        "model_version": served.loaded.label,
        "parameters": arm_parameters(served),
        "outputs": [
            {"name": name, "datatype": datatypes[name], "shape": [len(answers)], "data": columns[name]}
            for name in names
        ],
    }
    if request.id is not None:
        body["id"] = request.id
    return body


def arm_parameters(served: Member) -> dict[str, Any]:
    """Which arm answered; `revision` only where the version is a continual one."""
    parameters: dict[str, Any] = {"arm": served.arm, "version": served.loaded.version}
    if served.loaded.revision is not None:
        parameters["revision"] = served.loaded.revision
    return parameters


def model_metadata(arms: Arms, only: Member | None = None) -> dict[str, Any]:
    """What the model is asked and answers, of all versions served or of one."""
    members = [only] if only else list(arms.members())
    return {
        "name": arms.model,
        "versions": [member.loaded.label for member in members],
        "platform": f"tailrace_{members[0].loaded.learner}" if members else "tailrace",
        "inputs": [
            {
                "name": name,
                "datatype": "BYTES" if isinstance(feature, CategoricalFeature) else "FP64",
                "shape": [-1],
            }
            for name, feature in arms.rules.specs.items()
        ],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in outputs_of(arms.spec).items()
        ],
        "parameters": status(arms),
    }


def status(arms: Arms) -> dict[str, Any]:
    """Who answers, and what stands in the way of who should, as flat parameters."""
    parameters: dict[str, Any] = {}
    if arms.champion:
        parameters["champion"] = arms.champion.label
    if arms.canary:
        parameters["canary"] = arms.canary.label
        parameters["canary_percent"] = arms.canary_percent
    if arms.shadows:
        parameters["shadows"] = ", ".join(each.label for each in arms.shadows)
    for version, problem in arms.problems.items():
        parameters[f"problem_{version}"] = problem
    return parameters
