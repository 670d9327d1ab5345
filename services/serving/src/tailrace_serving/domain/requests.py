"""Inference requests on a topic: from a record's value to a question, and from its answers to the value of a reply.

The same fields as `InferenceRequested` and `InferenceAnswered` of `tailrace_contracts.events`, which stay the
definition. What a request leaves open is filled from the request itself (its id, its record's time), so that reading
it a second time asks the same question under the same prediction ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from tailrace_contracts.ranges import Trigger
from tailrace_serving.domain.arms import ArmAnswer, Member
from tailrace_serving.domain.explanation import Explanation
from tailrace_serving.domain.features import FeatureRules
from tailrace_serving.domain.nesting import check_depth
from tailrace_serving.domain.oip import check_rows
from tailrace_serving.domain.question import Question, entity, identifiers, moment
from tailrace_serving.domain.refusal import Refused, brief

MAX_REQUEST_ID = 120
"""A prediction id of a row is the request's and a number, and has 128 characters at most."""

_MOST_SHOWN = 200


class InferenceRequest(msgspec.Struct):
    """A request as it stands on the topic."""

    request_id: str
    model: str
    rows: list[dict[str, Any]]
    version: str | None = None
    prediction_ids: Any = None
    entity: Any = None
    time: Any = None
    explain: bool = False


class AnsweredRow(msgspec.Struct, omit_defaults=True):
    """One row's answer."""

    prediction_id: str
    prediction: int | float
    probability: float | None
    explanation: Explanation | None = None


class Cause(msgspec.Struct):
    """The record that a reply answers."""

    topic: str
    partition: int
    offset: int


class Reply(msgspec.Struct):
    """A reply as it stands on its topic."""

    trigger: Cause
    request_sha256: str
    time: datetime
    request_id: str = ""
    model: str = ""
    arm: Any = None
    version: int | None = None
    revision: int | None = None
    answers: list[AnsweredRow] = []
    code: str | None = None
    error: str | None = None
    type: str = "inference-answered"


class _Named(msgspec.Struct):
    request_id: Any = ""
    model: Any = ""


_REQUEST = msgspec.json.Decoder(InferenceRequest)
_NAMED = msgspec.json.Decoder(_Named)
_REPLY = msgspec.json.Decoder(Reply)
_ENCODE = msgspec.json.Encoder().encode


def request_of(value: bytes) -> InferenceRequest:
    """The request in a record's value. Raises Refused."""
    check_depth(value)
    try:
        request = _REQUEST.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(
            "malformed", f"the request is not an inference-requested event: {str(error)[:_MOST_SHOWN]}"
        ) from None
    if not 0 < len(request.request_id) <= MAX_REQUEST_ID:
        raise Refused(
            "malformed",
            f"request_id has {len(request.request_id)} characters, expected 1 to {MAX_REQUEST_ID}",
        )
    return request


def named(value: bytes) -> tuple[str, str]:
    """Request id and model of a request that cannot be read otherwise; empty where not even those can be."""
    try:
        found = _NAMED.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", ""
    identity, model = found.request_id, found.model
    usable = isinstance(identity, str) and len(identity) <= MAX_REQUEST_ID
    return (identity if usable else ""), (model if isinstance(model, str) and len(model) <= MAX_REQUEST_ID else "")


def question(request: InferenceRequest, rules: FeatureRules, max_rows: int, recorded: datetime) -> Question:
    """The question in a request whose record has this time. Raises Refused."""
    count = len(request.rows)
    if not count:
        raise Refused("malformed", "rows is empty, expected at least one row of features")
    check_rows(count, max_rows)
    rows = [rules.row(each, f"row {index}: " if count > 1 else "") for index, each in enumerate(request.rows)]
    ids = identifiers(None, request.prediction_ids, count) or prediction_ids(request.request_id, count)
    return Question(rows, ids, entity(request.entity), asked_at(request, recorded))


def prediction_ids(request_id: str, count: int) -> list[str]:
    """The prediction ids of a request that names none: for one row its own, for several with their numbers."""
    return [request_id] if count == 1 else [f"{request_id}/{index}" for index in range(count)]


def answered(
    request: InferenceRequest,
    cause: Trigger,
    now: datetime,
    *,
    digest: str,
    served: Member,
    answers: Sequence[ArmAnswer],
    ids: Sequence[str],
    explanations: Sequence[Explanation] = (),
) -> Reply:
    """The reply with all rows' answers, and their explanations where they were asked for."""
    return Reply(
        trigger=_cause(cause),
        request_sha256=digest,
        time=now,
        request_id=request.request_id,
        model=request.model,
        arm=served.arm,
        version=served.loaded.version,
        revision=served.loaded.revision,
        answers=[
            AnsweredRow(identity, each.prediction, each.probability, explanation)
            for identity, each, explanation in zip(ids, answers, explanations or (None,) * len(ids), strict=True)
        ],
    )


def refused(value: bytes, cause: Trigger, now: datetime, why: Refused) -> Reply:
    """The reply that says why there are no answers."""
    identity, model = named(value)
    return Reply(
        trigger=_cause(cause),
        request_sha256=sha256(value),
        time=now,
        request_id=identity,
        model=model,
        code=why.kind,
        error=why.sentence,
    )


def repeated(before: Reply, cause: Trigger, now: datetime) -> Reply:
    """The same answers once more, for a request that was sent again."""
    return msgspec.structs.replace(before, trigger=_cause(cause), time=now)


def asked_at(request: InferenceRequest, recorded: datetime) -> datetime:
    """The event time of a request whose record has this time. Raises Refused."""
    return moment(request.time) or recorded


def used_before(request_id: str) -> Refused:
    """The refusal of a request id that names another question already."""
    return Refused("malformed", f"request_id {brief(request_id)} names another request already; give each its own")


def sha256(value: bytes) -> str:
    """The digest that a reply names its request by."""
    return hashlib.sha256(value).hexdigest()


def encode(reply: Reply) -> bytes:
    """The reply's value."""
    return _ENCODE(reply)


def reply_in(value: bytes) -> Reply | None:
    """The reply in a record's value, or None when it is none."""
    try:
        return _REPLY.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _cause(trigger: Trigger) -> Cause:
    return Cause(trigger.topic, trigger.partition, trigger.offset)
