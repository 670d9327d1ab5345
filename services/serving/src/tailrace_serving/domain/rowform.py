"""The plain form beside the protocol, for people with curl: rows of features by name, answers in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tailrace_serving.domain.arms import ArmAnswer, Arms, Member
from tailrace_serving.domain.features import FeatureRules
from tailrace_serving.domain.oip import arm_parameters, check_rows
from tailrace_serving.domain.question import Question, entity, identifiers, moment
from tailrace_serving.domain.refusal import Refused


class PredictRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Either `features`, one row, or `rows`, several."""

    features: dict[str, Any] | None = None
    rows: list[dict[str, Any]] | None = None
    prediction_id: Any = None
    prediction_ids: Any = None
    entity: Any = None
    time: Any = None


def question(request: PredictRequest, rules: FeatureRules, max_rows: int) -> Question:
    """The question in a request. Raises Refused."""
    if (request.features is None) == (request.rows is None):
        raise Refused("malformed", 'the body needs either "features" (one row) or "rows" (a list of rows)')
    if request.features is not None:
        rows = [rules.row(request.features)]
    else:
        given = request.rows or []
        if not given:
            raise Refused("malformed", "rows is empty, expected at least one row of features")
        check_rows(len(given), max_rows)
        rows = [rules.row(each, f"row {index}: ") for index, each in enumerate(given)]
    return Question(
        rows,
        identifiers(request.prediction_id, request.prediction_ids, len(rows)),
        entity(request.entity),
        moment(request.time),
    )


def response(
    request: PredictRequest, arms: Arms, served: Member, answers: Sequence[ArmAnswer], ids: Sequence[str]
) -> dict[str, Any]:
    """The body of a response: the answer itself for `features`, a list of them for `rows`."""
    each = [
        {"prediction_id": identity, "prediction": answer.prediction}
        | ({} if answer.probability is None else {"probability": answer.probability})
        for identity, answer in zip(ids, answers, strict=True)
    ]
    head = {"model": arms.model, **arm_parameters(served)}
    return {**head, **each[0]} if request.rows is None else {**head, "predictions": each}
