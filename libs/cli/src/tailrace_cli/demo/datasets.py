"""The two real streams that come with Tailrace, as events.

A day of weather is an event of its own day, counted from 1949-01-01. The survey's rows carry only their year: they are
spread evenly over it. Prediction ids are `<model>-<row>`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import as_file, files
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tailrace_contracts.events import FeatureValue
from tailrace_contracts.spec import ModelSpec, load_spec

FIRST_DAY = datetime(1949, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a stream: the question, the producer's own answer if it has one, and the truth."""

    number: int
    time: datetime
    features: dict[str, FeatureValue]
    label: int
    prediction: int | None = None
    probability: float | None = None


def spec(name: str) -> ModelSpec:
    """The spec that comes with a demo: `rain` or `employment`."""
    with as_file(files("tailrace_cli") / "data" / f"{name}.yaml") as path:
        return load_spec(path)


def _table(name: str) -> pa.Table:
    with as_file(files("tailrace_cli") / "data" / f"{name}.parquet") as path:
        return pq.read_table(path)


def weather() -> list[Row]:
    """All days, in order."""
    return [
        Row(
            number,
            FIRST_DAY + number * DAY,
            {name: value for name, value in row.items() if name != "rain"},
            int(row["rain"]),
        )
        for number, row in enumerate(_table("weather").to_pylist())
    ]


def employment() -> Iterator[Row]:
    """All rows, in order, spread evenly over their years."""
    table = _table("employment")
    sizes: dict[int, int] = {each["values"]: each["counts"] for each in table["year"].value_counts().to_pylist()}
    features = [
        name for name in table.column_names if name not in {"employed", "year", "prediction", "predicted_probability"}
    ]
    seen: dict[int, int] = dict.fromkeys(sizes, 0)
    number = 0
    for batch in table.to_batches(max_chunksize=5_000):
        for row in batch.to_pylist():
            year = row["year"]
            yield Row(
                number,
                _within(year, seen[year] / sizes[year]),
                {name: _value(row[name]) for name in features},
                int(row["employed"]),
                int(row["prediction"]),
                float(row["predicted_probability"]),
            )
            seen[year] += 1
            number += 1


def _within(year: int, share: float) -> datetime:
    start, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    return start + share * (end - start)


def _value(value: Any) -> FeatureValue:
    return float(value) if isinstance(value, int) else value
