"""Asking for explanations: the two forms of asking for answers, each with what the features contributed beside them.

In the Open Inference Protocol, which has no such verb of its own, an explanation is more outputs of the same response:
`contributions` [n, features] in the order that its parameter `features` gives, `base_value` [n], `explained_output` [n]
and, where contributions are sampled, `standard_errors` [n, features]; what is the same for all rows is in the response's
parameters. In the plain form it is an object beside each answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tailrace_serving.domain import oip, rowform
from tailrace_serving.domain.arms import ArmAnswer, Arms, Member
from tailrace_serving.domain.explanation import LEAST_PERMUTATIONS, Explanation, permutations_of, recorded
from tailrace_serving.domain.features import FeatureRules
from tailrace_serving.domain.question import Question

OUTPUTS = {"contributions": "FP64", "base_value": "FP64", "explained_output": "FP64", "standard_errors": "FP64"}


class Parameters(oip.Parameters):
    """Those of an inference, and how to explain it."""

    permutations: Any = None
    record: Any = None


class ExplainRequest(oip.InferRequest):
    """An inference request whose answers are to be explained."""

    parameters: Parameters | None = None


class ExplainRowsRequest(rowform.PredictRequest):
    """The plain form of the same."""

    permutations: Any = None
    record: Any = None


class OfTensors:
    """Explanations in the Open Inference Protocol."""

    def question(self, request: ExplainRequest, rules: FeatureRules, max_rows: int) -> Question:
        """The question in a request. Raises Refused."""
        asked = oip.question(request, rules, max_rows, OUTPUTS)
        self.how(request, LEAST_PERMUTATIONS)
        return asked

    def how(self, request: ExplainRequest, usual: int) -> tuple[int, bool]:
        """The permutations, and whether the answers are recorded. Raises Refused."""
        asked = request.parameters or Parameters()
        return permutations_of(asked.permutations, usual, "parameters: "), recorded(asked.record, "parameters: ")

    def response(
        self, request: ExplainRequest, arms: Arms, served: Member, answers: Sequence[ArmAnswer], ids: Sequence[str]
    ) -> dict[str, Any]:
        """The body of the answer, as yet without its explanations."""
        return oip.response(request, arms, served, answers, ids)

    def put(self, request: ExplainRequest, response: dict[str, Any], explanations: Sequence[Explanation]) -> None:
        """Put the explanations into the body of the answer."""
        first, names = explanations[0], list(explanations[0].contributions)
        columns: dict[str, list[float]] = {
            "contributions": [value for each in explanations for value in each.contributions.values()],
            "base_value": [each.base_value for each in explanations],
            "explained_output": [each.output for each in explanations],
        }
        if first.standard_errors:
            columns["standard_errors"] = [value for each in explanations for value in each.standard_errors.values()]
        wanted = {each.name for each in request.outputs} if request.outputs else columns.keys()
        response["outputs"] += [
            _tensor(name, columns[name], len(explanations), names) for name in columns if name in wanted
        ]
        response["parameters"] |= _shared(first)


class OfRows:
    """Explanations in the plain form."""

    def question(self, request: ExplainRowsRequest, rules: FeatureRules, max_rows: int) -> Question:
        """The question in a request. Raises Refused."""
        asked = rowform.question(request, rules, max_rows)
        self.how(request, LEAST_PERMUTATIONS)
        return asked

    def how(self, request: ExplainRowsRequest, usual: int) -> tuple[int, bool]:
        """The permutations, and whether the answers are recorded. Raises Refused."""
        return permutations_of(request.permutations, usual), recorded(request.record)

    def response(
        self, request: ExplainRowsRequest, arms: Arms, served: Member, answers: Sequence[ArmAnswer], ids: Sequence[str]
    ) -> dict[str, Any]:
        """The body of the answer, as yet without its explanations."""
        return rowform.response(request, arms, served, answers, ids)

    def put(self, request: ExplainRowsRequest, response: dict[str, Any], explanations: Sequence[Explanation]) -> None:
        """Put the explanations into the body of the answer."""
        answers = [response] if request.rows is None else response["predictions"]
        for answer, explanation in zip(answers, explanations, strict=True):
            answer["explanation"] = msgspec.to_builtins(explanation)


def _tensor(name: str, values: list[float], rows: int, features: list[str]) -> dict[str, Any]:
    tensor: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name], "shape": [rows], "data": values}
    if name in {"contributions", "standard_errors"}:
        tensor["shape"] = [rows, len(features)]
        tensor["parameters"] = {"features": msgspec.json.encode(features).decode()}
    return tensor


def _shared(explanation: Explanation) -> dict[str, Any]:
    return {
        "method": explanation.method,
        "scale": explanation.scale,
        "permutations": explanation.permutations,
        "reference_rows": explanation.reference_rows,
        "reference_sha256": explanation.reference_sha256,
    }
