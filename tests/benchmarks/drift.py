"""How fast drift of many features over many rows is measured, and how fast Evidently's default report is beside it.

    uv run python -m tests.benchmarks.drift --features 1000 --rows 3000000
    uv run python -m tests.benchmarks.drift --rounded        # values of two decimals, which repeat
    uv run python -m tests.benchmarks.drift --counting       # all statistics that ingestion keeps
    uv run python -m tests.benchmarks.drift --evidently --features 20 --rows 200000

Rows come in batches of 50,000, column by column, through the folds that references and windows are made with, in as many processes as there are
cores; each has its part of the features. At the end every feature's window is measured against its reference, of 5,000 rows.
Values are drawn once and dealt out again and again, each time with another column and batch, so that what is timed is the
statistic, not the random numbers. CPU seconds are those of folding and measuring; they say what two cores that nobody else uses
would take, and the wall clock says what these did.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tailrace_statistics.columns import NumericalFold
from tailrace_statistics.distances import Cells, automatic
from tests.benchmarks.false_alarms import ask_evidently

BATCH, POOL, REFERENCE = 50_000, 61, 5_000


class Part(NamedTuple):
    """The features of one process: the first one's number, how many, their rows, and what they are like."""

    first: int
    features: int
    rows: int
    rounded: bool = False
    counting: bool = True


def measure(part: Part) -> dict[str, float]:
    """Fold and measure the features of one process."""
    first, features, rows, rounded, counting = part
    pool = np.random.default_rng(first).normal(size=(POOL, BATCH))
    pool = pool.round(2) if rounded else pool
    started = time.process_time()
    references = [NumericalFold(counting=counting) for _ in range(features)]
    for number, fold in enumerate(references):
        fold.fold(pool[number % POOL, :REFERENCE])
    windows = [NumericalFold(counting=counting) for _ in range(features)]
    for batch in range(rows // BATCH):
        for number, fold in enumerate(windows):
            fold.fold(pool[(number + 7 * batch) % POOL])
    folded = time.process_time()
    drifted = 0
    for reference, window in zip(references, windows, strict=True):
        summary = reference.summary()
        drifted += Cells.of(summary).distance(automatic(summary), window.summary()) > 0.1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "fold": folded - started,
        "distance": time.process_time() - folded,
        "peak MiB": peak,
        "drifted": float(drifted),
    }


def ours(whole: Part, processes: int) -> dict[str, object]:
    """Everything, in parallel."""
    share = whole.features // processes
    parts_of = [whole._replace(first=each * share, features=share) for each in range(processes)]
    started = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        parts = pool.map(measure, parts_of)
    wall = time.perf_counter() - started
    cpu = sum(part["fold"] + part["distance"] for part in parts)
    return {
        "values": whole.features * whole.rows,
        "distinct and frequent values": whole.counting,
        "wall seconds": round(wall, 1),
        "CPU seconds": round(cpu, 1),
        "CPU seconds per process": round(cpu / processes, 1),
        "of these for distances": round(sum(part["distance"] for part in parts), 2),
        "million values per CPU second": round(whole.features * whole.rows / cpu / 1e6, 2),
        "peak MiB": round(sum(part["peak MiB"] for part in parts)),
        "load": os.getloadavg()[0],
    }


def beside_evidently(features: int, rows: int) -> dict[str, object]:
    """Values per CPU second of Evidently's default report, and of ours on the same columns."""
    import pyarrow as pa
    from pyarrow import parquet

    random = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("reference", "window-000"):
            columns = {f"x{each}": random.normal(size=rows) for each in range(features)}
            parquet.write_table(pa.table(columns), Path(folder) / f"{name}.parquet")
        answer = ask_evidently(Path(folder))
    theirs = answer["values"] / answer["cpu_seconds"]
    found = [measure(Part(0, features, rows, counting=counting)) for counting in (False, True)]
    lean, full = (features * (rows + REFERENCE) / (each["fold"] + each["distance"]) for each in found)
    return {
        "features": features,
        "rows": rows,
        "Evidently, million values per CPU second": round(theirs / 1e6, 3),
        "Tailrace, what drift needs": round(lean / 1e6, 2),
        "ratio": round(lean / theirs, 1),
        "Tailrace, all statistics": round(full / 1e6, 2),
        "its ratio": round(full / theirs, 1),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--features", type=int, default=1_000)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounded", action="store_true")
    parser.add_argument("--counting", action="store_true", help="also distinct and frequent values, as ingestion does")
    parser.add_argument("--evidently", action="store_true")
    asked = parser.parse_args()
    whole = Part(0, asked.features, asked.rows, asked.rounded, asked.counting)
    found = beside_evidently(asked.features, asked.rows) if asked.evidently else ours(whole, asked.processes)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
