"""How fast drift of many features over many rows is measured, and how fast Evidently's default report is beside it.

    uv run python -m tests.benchmarks.drift --features 1000 --rows 3000000
    uv run python -m tests.benchmarks.drift --evidently

Rows come in batches of 50,000, column by column, through the folds that ingestion uses, in as many processes as there are
cores; each has its part of the features. At the end every feature's window is measured against its reference, of 5,000 rows.
Values are drawn once and dealt out again and again, each time with another column and batch, so that what is timed is the
statistic, not the random numbers; nothing of it depends on the values.
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

import numpy as np

from tailrace_statistics.columns import NumericalFold
from tailrace_statistics.distances import Cells, automatic
from tests.benchmarks.false_alarms import ask_evidently

BATCH, POOL, REFERENCE = 50_000, 61, 5_000


def measure(part: tuple[int, int, int]) -> dict[str, float]:
    """Fold and measure the features of one process."""
    first, features, rows = part
    pool = np.random.default_rng(first).normal(size=(POOL, BATCH))
    started = time.process_time()
    references = [NumericalFold() for _ in range(features)]
    for number, fold in enumerate(references):
        fold.fold(pool[number % POOL, :REFERENCE])
    windows = [NumericalFold() for _ in range(features)]
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


def ours(features: int, rows: int, processes: int) -> dict[str, object]:
    """Everything, in parallel."""
    share = features // processes
    started = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        parts = pool.map(measure, [(each * share, share, rows) for each in range(processes)])
    wall = time.perf_counter() - started
    cpu = sum(part["fold"] + part["distance"] for part in parts)
    return {
        "values": features * rows,
        "wall seconds": round(wall, 1),
        "CPU seconds": round(cpu, 1),
        "of these for distances": round(sum(part["distance"] for part in parts), 2),
        "million values per CPU second": round(features * rows / cpu / 1e6, 2),
        "peak MiB": round(sum(part["peak MiB"] for part in parts)),
        "load": os.getloadavg()[0],
    }


def beside_evidently(features: int = 20, rows: int = 200_000) -> dict[str, object]:
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
    mine = measure((0, features, rows))
    of_ours = features * (rows + REFERENCE) / (mine["fold"] + mine["distance"])
    return {
        "Evidently, million values per CPU second": round(theirs / 1e6, 3),
        "Tailrace": round(of_ours / 1e6, 2),
        "ratio": round(of_ours / theirs, 1),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--features", type=int, default=1_000)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--evidently", action="store_true")
    asked = parser.parse_args()
    print(json.dumps(beside_evidently() if asked.evidently else ours(asked.features, asked.rows, asked.processes)))


if __name__ == "__main__":
    main()
