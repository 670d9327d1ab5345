"""`tailrace infer`: rows of features to a model, and its answers, over HTTP or over Kafka.

Over HTTP the rows go as the Open Inference Protocol has them, column by column, so that a version can be named too. A
request of one id has the same prediction ids either way: its own for one row, `id/0`, `id/1` and so on for several.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp

from tailrace_cli import sending
from tailrace_cli.connection import CommandError, Connection
from tailrace_client import InferenceClient, InferenceError

Row = dict[str, Any]
COLUMNS = ("prediction_id", "prediction", "probability", "version", "arm")


class Asked(NamedTuple):
    """One request, as the command line describes it."""

    model: str
    rows: Sequence[Row]
    request_id: str
    version: str | None = None
    entity: str | None = None
    seconds: float = 30


def asked(model: str, rows: Sequence[Row], request_id: str | None, **more: Any) -> Asked:
    """A request; without an id it gets one."""
    return Asked(model, rows, request_id or uuid.uuid4().hex, **more)


def rows_of(texts: Sequence[str], file: str | None) -> list[Row]:
    """The rows that were typed, and those of a file. Raises CommandError: none, or one that is no row."""
    found = [_row("--row", text) for text in texts]
    if file is not None:
        found += [_mapping(place, row) for place, row in sending.rows(file)]
    if not found:
        msg = "no rows; give one with --row '{\"feature\": 1}', or a file of them with --file"
        raise CommandError(msg)
    return found


def _row(place: str, text: str) -> Row:
    try:
        return _mapping(place, json.loads(text))
    except json.JSONDecodeError as error:
        msg = f"{place}: not JSON ({error.msg} at column {error.colno}); expected features by name, as {_EXAMPLE}"
        raise CommandError(msg) from None


_EXAMPLE = '{"humidity": 40, "sky": "clear"}'


def _mapping(place: str, row: Any) -> Row:
    if isinstance(row, ValueError):
        msg = f"{place}: {row}"
        raise CommandError(msg)
    if not isinstance(row, Mapping):
        msg = f"{place}: expected features by name, as {_EXAMPLE}, found {json.dumps(row)[:60]}"
        raise CommandError(msg)
    return dict(row)


# ---------------------------------------------------------------- Kafka


async def over_kafka(connection: Connection, question: Asked) -> list[Row]:
    """The answers to a request on `inference-requests`. Raises CommandError with the service's sentence."""
    try:
        async with InferenceClient(
            connection.bootstrap, topic_prefix=connection.topic_prefix, source="/cli/infer"
        ) as client:
            reply = await client.infer(
                question.model,
                question.rows,
                request_id=question.request_id,
                version=question.version,
                entity=question.entity,
                timeout_seconds=question.seconds,
            )
    except InferenceError as error:
        raise CommandError(str(error)) from None
    version = str(reply.version) if reply.revision is None else f"{reply.version}.{reply.revision}"
    return [
        {
            "prediction_id": each.prediction_id,
            "prediction": each.prediction,
            "probability": each.probability,
            "version": version,
            "arm": reply.arm,
        }
        for each in reply.answers
    ]


# ---------------------------------------------------------------- HTTP


async def over_http(connection: Connection, question: Asked) -> list[Row]:
    """The answers to a request over HTTP. Raises CommandError with the service's sentence."""
    version = f"/versions/{quote(question.version, safe='')}" if question.version else ""
    url = f"{connection.serving_url}/v2/models/{quote(question.model, safe='')}{version}/infer"
    timeout = aiohttp.ClientTimeout(total=question.seconds)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as client,
            client.post(url, json=_request(question)) as answer,
        ):
            status, text = answer.status, await answer.text()
    except (TimeoutError, aiohttp.ClientError, ValueError) as error:
        why = str(error) or f"not within {question.seconds:g} s"
        msg = (
            f"serving does not answer at {connection.serving_url} ({why}); see `tailrace status`, or set"
            " TAILRACE_SERVING_URL"
        )
        raise CommandError(msg) from None
    return list(_answers(status, text))


def _request(question: Asked) -> dict[str, Any]:
    count = len(question.rows)
    many = [f"{question.request_id}/{number}" for number in range(count)]
    parameters: dict[str, Any] = {"prediction_ids": json.dumps(many if count > 1 else [question.request_id])}
    if question.entity is not None:
        parameters["entity"] = question.entity
    return {"id": question.request_id, "parameters": parameters, "inputs": list(_tensors(question.rows))}


def _tensors(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """A tensor for each feature that a row has; where another lacks it, it is missing."""
    for name in dict.fromkeys(name for row in rows for name in row):
        column = [row.get(name) for row in rows]
        yield {"name": name, "datatype": _datatype(column), "shape": [len(rows)], "data": column}


def _datatype(column: Sequence[Any]) -> str:
    types = {type(value) for value in column if value is not None}
    return "BYTES" if types == {str} else "BOOL" if types == {bool} else "FP64"


def _answers(status: int, text: str) -> Iterator[Row]:
    try:
        body = json.loads(text)
        if status != 200:
            raise CommandError(body["error"])
        columns = {each["name"]: each["data"] for each in body["outputs"]}
        identities, predictions = columns["prediction_id"], columns["prediction"]
        version, arm = body["model_version"], body["parameters"]["arm"]
    except (json.JSONDecodeError, KeyError, TypeError):
        msg = f"what answers is not serving: status {status}, {text[:60]!r}; correct TAILRACE_SERVING_URL"
        raise CommandError(msg) from None
    probabilities = columns.get("probability", [None] * len(predictions))
    for identity, prediction, probability in zip(identities, predictions, probabilities, strict=True):
        yield dict(zip(COLUMNS, (identity, prediction, probability, version, arm), strict=True))
