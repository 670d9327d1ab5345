"""What is asked, whichever form it came in: rows, and who and when they are about."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec

from tailrace_serving.domain.features import Row
from tailrace_serving.domain.prediction_event import in_utc
from tailrace_serving.domain.refusal import Refused, brief

MAX_IDENTIFIER = 128


class Question(NamedTuple):
    """Rows for one model. One request is answered by one arm."""

    rows: list[Row]
    prediction_ids: list[str] | None = None
    entity: str | None = None
    time: datetime | None = None


def identifiers(one: object, many: object, rows: int, where: str = "") -> list[str] | None:
    """The prediction ids of a request: `prediction_id` for one row, or `prediction_ids`, one for each. Raises Refused.

    `prediction_ids` is a list of strings, or that list as JSON in a string, because the parameters of the Open
    Inference Protocol are scalars.
    """
    if many is not None:
        if one is not None:
            raise Refused("malformed", f"{where}prediction_id and prediction_ids are both given; send one of them")
        return _many(many, rows, where)
    if one is None:
        return None
    if rows != 1:
        raise Refused(
            "malformed", f"{where}prediction_id names one row, found {rows}; send prediction_ids, one for each row"
        )
    return [identifier(one, f"{where}prediction_id")]


def _many(many: object, rows: int, where: str) -> list[str]:
    if isinstance(many, str):
        try:
            many = msgspec.json.decode(many)
        except msgspec.DecodeError:
            raise Refused("malformed", f"{where}prediction_ids is a string, expected a JSON list in it") from None
    if not isinstance(many, list) or len(many) != rows:
        found = f"{len(many)}" if isinstance(many, list) else "no list"
        raise Refused("malformed", f"{where}prediction_ids has {found}, expected a list of {rows}, one for each row")
    return [identifier(each, f"{where}prediction_ids[{index}]") for index, each in enumerate(many)]


def identifier(value: object, where: str) -> str:
    """A string of 1 to 128 characters. Raises Refused."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_IDENTIFIER:
        found = f"{len(value)} characters" if isinstance(value, str) else f"{type(value).__name__}"
        raise Refused("malformed", f"{where} is {found}, expected a string of 1 to {MAX_IDENTIFIER} characters")
    return value


def entity(value: object, where: str = "") -> str | None:
    """The entity that the rows are about, if it is named. Raises Refused."""
    return None if value is None else identifier(value, f"{where}entity")


def moment(value: object, where: str = "") -> datetime | None:
    """An RFC 3339 time with an offset, in UTC, if one is given. Raises Refused."""
    if value is None:
        return None
    sentence = f"{where}time is {brief(value)}, expected RFC 3339 with an offset such as 2026-01-31T12:00:00Z"
    if not isinstance(value, str):
        raise Refused("malformed", sentence)
    try:
        found = datetime.fromisoformat(value)
        if found.tzinfo is None:
            raise Refused("malformed", sentence)
        return in_utc(found)
    except (ValueError, OverflowError):
        raise Refused("malformed", sentence) from None
