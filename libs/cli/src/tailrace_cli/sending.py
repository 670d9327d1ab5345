"""`tailrace send`: a file of predictions or labels onto the public topics.

JSON lines: one event a line, as `schemas/events` describes it; `-` reads standard input. Parquet: the columns
`prediction_id`, `time`, `prediction`, `probability`, `entity` (and `label` for labels) are the event's, every other
column is a feature. A row that cannot be an event is named and skipped, the others are sent; the count tells.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from pydantic import ValidationError

from tailrace_cli.connection import CommandError, Connection
from tailrace_client import AsyncPublisher
from tailrace_client.publisher import LABELS, PREDICTIONS
from tailrace_contracts.events import ArmOutput, LabelGiven, PredictionMade

Kind = Literal["predictions", "labels"]
PREDICTION_COLUMNS = frozenset({"prediction_id", "time", "prediction", "probability", "entity"})
_CHUNK = 1_000


@dataclass
class Sent:
    """What became of a file's rows: how many are on the topic, and one sentence for each that could not be sent."""

    sent: int = 0
    refused: list[str] = field(default_factory=list)


async def send(connection: Connection, kind: Kind, source: str, model: str | None) -> Sent:
    """Send a file's rows and wait for the broker's acknowledgements.

    Raises CommandError when the file cannot be read, PublishError when the broker does not answer.
    """
    result = Sent()
    topic = PREDICTIONS if kind == "predictions" else LABELS
    async with AsyncPublisher(
        connection.bootstrap, topic_prefix=connection.topic_prefix, source="/cli/send"
    ) as publisher:
        for place, row in rows(source):
            try:
                event = as_prediction(row, model) if kind == "predictions" else as_label(row, model)
            except (ValidationError, ValueError) as error:
                result.refused.append(f"{place}: {sentence(error)}")
                continue
            await publisher.publish(topic, event.prediction_id, event)
            result.sent += 1
            if result.sent % _CHUNK == 0:
                await publisher.flush()
    return result


def rows(source: str) -> Iterator[tuple[str, Any]]:
    """Each row of a file with its place, for error messages. Raises CommandError when the file cannot be read."""
    if source == "-":
        yield from _json_lines("standard input", sys.stdin)
        return
    path = Path(source)
    if not path.is_file():
        msg = f"{source}: no such file; name a .jsonl or .parquet file, or - for standard input"
        raise CommandError(msg)
    if path.suffix == ".parquet":
        yield from _parquet(path)
        return
    try:
        with path.open(encoding="utf-8") as lines:
            yield from _json_lines(source, lines)
    except UnicodeDecodeError:
        msg = f"{source}: not text; expected JSON lines, or a file whose name ends in .parquet"
        raise CommandError(msg) from None
    except OSError as error:
        msg = f"{source}: cannot be read ({error.strerror}); name a .jsonl or .parquet file, or - for standard input"
        raise CommandError(msg) from None


def _json_lines(name: str, lines: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield f"{name}:{number}", json.loads(line)
        except json.JSONDecodeError as error:
            yield (
                f"{name}:{number}",
                ValueError(f"not JSON ({error.msg} at column {error.colno}); expected one event a line"),
            )


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_CHUNK):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
    except (pa.ArrowInvalid, OSError) as error:
        msg = f"{path}: not a Parquet file ({error}); expected Parquet or JSON lines"
        raise CommandError(msg) from None


def as_prediction(row: Any, model: str | None) -> PredictionMade:
    """A row as a prediction event. Raises ValueError or ValidationError with what is wrong."""
    document = dict(_mapping(row))
    if "features" not in document:
        document = _flat_prediction(document)
    document.setdefault("model", model)
    document.setdefault("prediction_id", uuid4().hex)
    document["time"] = moment(document.get("time"))
    return PredictionMade.model_validate(document)


def _flat_prediction(row: Mapping[str, Any]) -> dict[str, Any]:
    features = {name: _plain(value) for name, value in row.items() if name not in PREDICTION_COLUMNS | {"model"}}
    known: dict[str, Any] = {
        name: row[name] for name in ("prediction_id", "time", "entity", "model") if row.get(name) is not None
    }
    if row.get("prediction") is not None:
        known["served"] = ArmOutput(arm="external", prediction=row["prediction"], probability=row.get("probability"))
    if not features:
        msg = "features: expected the model's features, under `features` or beside the other fields, found nothing"
        raise ValueError(msg)
    if features.keys() == {"label"}:
        msg = "a label, not a prediction; send it with `tailrace send labels`"
        raise ValueError(msg)
    return known | {"features": features}


def as_label(row: Any, model: str | None) -> LabelGiven:
    """A row as a label event. Raises ValueError or ValidationError with what is wrong."""
    document = dict(_mapping(row))
    document.setdefault("model", model)
    document["time"] = moment(document.get("time"))
    return LabelGiven.model_validate(document)


def _mapping(row: Any) -> Mapping[str, Any]:
    if isinstance(row, ValueError):
        raise row
    if not isinstance(row, Mapping):
        msg = f"expected an object with at least prediction_id, found {type(row).__name__}"
        raise ValueError(msg)  # noqa: TRY004 - one kind of error for one kind of mistake
    return row


def moment(value: Any) -> Any:
    """An event time as events need it: a date is its midnight, a time without an offset is UTC, nothing is now."""
    if value is None:
        return datetime.now(UTC)
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time(), UTC)
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


_NUMBERS = frozenset({"int", "float"})
"""What pydantic puts at the end of a field's place where a number of either kind may stand."""


def sentence(error: Exception) -> str:
    """What is wrong with a row, in one sentence."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in _NUMBERS)
    found = "nothing" if first["input"] is None or first["type"] == "missing" else repr(first["input"])[:60]
    return f"{where}: {first['msg']}, found {found}"
