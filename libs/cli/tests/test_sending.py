"""`tailrace send`: files of people who are not us."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tailrace_cli.connection import CommandError, Connection
from tailrace_cli.sending import as_label, as_prediction, moment, rows, send
from tailrace_testing import Broker

NOW = datetime(2026, 5, 4, tzinfo=UTC)


async def connection(kafka: Broker) -> Connection:
    """A Tailrace of its own: a prefix, and the topics that these tests use."""
    prefix = kafka.unique("send") + "-"
    for topic in ("prediction-events", "label-events"):
        await kafka.create_topic(prefix + topic)
    return Connection(kafka.bootstrap, prefix, "http://127.0.0.1:9", "http://127.0.0.1:9", "memory:///")


async def test_good_rows_are_sent_and_bad_ones_named(kafka: Broker, tmp_path: Path) -> None:
    """One broken line would lose the file, or be lost itself."""
    file = tmp_path / "labels.jsonl"
    file.write_text(
        '{"prediction_id": "a", "label": 1, "time": "2026-05-04T00:00:00Z"}\n'
        "{broken\n\n"
        '{"prediction_id": "b", "label": "yes", "time": "2026-05-04T00:00:00Z"}\n'
        "[1]\n"
        '{"prediction_id": "c", "label": 0, "time": "2026-05-04T00:00:00Z"}\n'
    )
    result = await send(await connection(kafka), "labels", str(file), "rain")
    assert result.sent == 2
    assert [each.removeprefix(str(file)) for each in result.refused] == [
        ":2: not JSON (Expecting property name enclosed in double quotes at column 2); expected one event a line",
        ":4: label: Input should be a number, found 'yes'",
        ":5: expected an object with at least prediction_id, found list",
    ]


def test_parquet_columns_become_features(tmp_path: Path) -> None:
    """A data scientist's table could not be sent as it is."""
    file = tmp_path / "predictions.parquet"
    table = pa.table(
        {
            "prediction_id": ["x"],
            "time": [date(2026, 5, 4)],
            "prediction": [1],
            "probability": [0.75],
            "age": [41],
            "sex": ["2"],
        }
    )
    pq.write_table(table, file)
    [(place, row)] = list(rows(str(file)))
    event = as_prediction(row, "employment")
    assert place == f"{file}: row 1"
    assert (event.prediction_id, event.time, event.features) == ("x", NOW, {"age": 41, "sex": "2"})
    assert event.served is not None
    assert (event.served.arm, event.served.prediction, event.served.probability) == ("external", 1, 0.75)


def test_an_event_in_full_is_taken_as_it_is() -> None:
    """What one Tailrace has archived could not be sent to another."""
    whole = {"prediction_id": "x", "model": "rain", "time": "2026-05-04T00:00:00Z", "features": {"t": 1.0}}
    assert as_prediction(whole, None).model == "rain"
    assert as_label({"prediction_id": "x", "label": 1, "time": "2026-05-04T00:00:00Z"}, "rain").time == NOW


@pytest.mark.parametrize(
    ("row", "words"),
    [({"prediction_id": "x", "label": 1}, "tailrace send labels"), ({"prediction_id": "x"}, "found nothing")],
)
def test_a_row_that_is_no_prediction(row: dict[str, Any], words: str) -> None:
    """A file of labels, sent as predictions, would flood the dead letters."""
    with pytest.raises(ValueError, match=words):
        as_prediction(row, "rain")


def test_times_as_people_write_them() -> None:
    """A date or a time without an offset would be refused, or shifted."""
    assert moment(date(2026, 5, 4)) == NOW
    assert moment(datetime(2026, 5, 4)) == NOW  # noqa: DTZ001 - that is the case
    assert moment("2026-05-04T00:00:00Z") == "2026-05-04T00:00:00Z"
    assert moment(None).tzinfo is UTC


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing.jsonl", "no such file"), ("broken.parquet", "not a Parquet file"), ("binary.jsonl", "not text")],
)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, name: str, words: str) -> None:
    """A typing error in a file name would show a traceback."""
    (tmp_path / "broken.parquet").write_text("no")
    (tmp_path / "binary.jsonl").write_bytes(b"\x7fELF\xd0")
    with pytest.raises(CommandError, match=words):
        list(rows(str(tmp_path / name)))
