"""Rows that an imported model was trained on, as its reference: explanations start from them, and drift is measured against them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tailrace_cli.connection import CommandError
from tailrace_cli.sending import rows
from tailrace_contracts.events import FeatureValue
from tailrace_contracts.spec import ModelSpec, NumericalFeature
from tailrace_statistics.reference import Reference

MOST_ROWS = 1_000_000


def reference_of(source: Path, spec: ModelSpec) -> bytes:
    """The reference that the rows of a CSV, Parquet or JSON lines file make. Raises CommandError."""
    found = [_features(place, row, spec) for place, row in _rows(source)]
    if not found:
        msg = f"{source}: no rows, expected some that the model was trained on"
        raise CommandError(msg)
    return Reference.build(spec, found).to_bytes()


def _rows(source: Path) -> Iterator[tuple[str, Any]]:
    found = _csv(source) if source.suffix == ".csv" and source.is_file() else rows(str(source))
    for count, each in enumerate(found):
        if count >= MOST_ROWS:
            msg = f"{source}: more than {MOST_ROWS} rows; name a sample of them"
            raise CommandError(msg)
        yield each


def _csv(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            for number, row in enumerate(csv.DictReader(lines), start=2):
                yield f"{path}:{number}", row
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"{path}: not a CSV file in UTF-8 ({error}); expected CSV, Parquet or JSON lines"
        raise CommandError(msg) from None
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); name a CSV, Parquet or JSON lines file"
        raise CommandError(msg) from None


def _features(place: str, row: Any, spec: ModelSpec) -> dict[str, FeatureValue]:
    if not isinstance(row, Mapping):
        msg = f"{place}: {row if isinstance(row, ValueError) else 'not a row'}; expected one value for each feature"
        raise CommandError(msg)
    given: Mapping[str, Any] = row["features"] if isinstance(row.get("features"), Mapping) else row
    missing = [name for name in spec.feature_names if name not in given]
    if missing:
        msg = (
            f"{place}: feature {missing[0]!r} is missing; expected a value, or nothing in its place, for every feature"
        )
        raise CommandError(msg)
    return {
        each.name: _number(given[each.name], f"{place}: feature {each.name!r}")
        if isinstance(each, NumericalFeature)
        else _word(given[each.name])
        for each in spec.features
    }


def _number(value: Any, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        msg = f"{where} is {str(value)[:60]!r}, expected a number"
        raise CommandError(msg) from None
    return found if math.isfinite(found) else None


def _word(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)
