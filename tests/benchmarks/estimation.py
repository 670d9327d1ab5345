"""Estimated performance against what was realised, beside the published package nannyml on the same chunks.

    uv run python -m tests.benchmarks.estimation [--without-peer]

- *Employment*: 277,677 census rows with another model's answers, 2015 to learn from, then chunks of 5,000 rows.
- *Synthetic*: a model whose inputs move (the estimate must follow), then whose concept turns (it must be wrong, and doubted).
- *Regression*: a model whose error depends on its inputs, which move.

Ours comes from what monitoring has: sketches of each chunk's probabilities, and counts of labelled cohorts. `fixed` learns
from the reference alone, as nannyml does; `recent` from the newest labelled chunks, whose labels come one chunk late.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tailrace_monitoring.adapters.sklearn_learners import foretell
from tailrace_statistics import estimation as e
from tailrace_statistics.columns import NumericalFold
from tailrace_statistics.direct_loss import Lessons, mean_loss, root
from tailrace_statistics.multivariate import Table

NANNYML = "nannyml==0.13.1"
CHUNK = 5_000
FIGURES = ("accuracy", "roc_auc")
EMPLOYMENT = Path(__file__).parents[2] / "libs/cli/src/tailrace_cli/data/employment.parquet"

Floats = npt.NDArray[np.float64]
Columns = dict[str, npt.NDArray[Any]]


class Result(NamedTuple):
    """One estimator on the chunks to be estimated: by figure its values and bounds, and what it cost."""

    name: str
    figures: Mapping[str, Mapping[str, Sequence[float]]]
    cpu_seconds: float


def employment() -> Columns:
    """Answers and labels of the survey, cut to whole chunks; the first year is the reference."""
    rows = pq.read_table(EMPLOYMENT, columns=["year", "prediction", "predicted_probability", "employed"])
    first = int(np.sum(rows["year"].to_numpy() == 2015)) // CHUNK * CHUNK
    length = rows.num_rows // CHUNK * CHUNK
    names = {"prediction": "prediction", "probability": "predicted_probability", "label": "employed"}
    found = {name: rows[column].to_numpy()[:length] for name, column in names.items()}
    return found | {"phase": np.where(np.arange(length) < first, "reference", "analysis")}


def synthetic(chunks: Sequence[tuple[float, float]], reference: int, seed: int = 1) -> Columns:
    """An overconfident model; for each chunk how far its inputs have moved and what they are worth."""
    chance = np.random.default_rng(seed)
    moved = np.repeat([each[0] for each in chunks], CHUNK)
    worth = np.repeat([each[1] for each in chunks], CHUNK)
    inputs = chance.normal(moved, 1.5)
    labels = (chance.random(len(inputs)) < 1 / (1 + np.exp(-worth * inputs))).astype(np.int64)
    probability = 1 / (1 + np.exp(-1.7 * inputs))
    return {
        "prediction": (probability >= 0.5).astype(np.int64),
        "probability": probability,
        "label": labels,
        "phase": np.where(np.arange(len(inputs)) < reference * CHUNK, "reference", "analysis"),
    }


def outcomes(part: Columns) -> e.Array:
    """A chunk's labelled answers, as a cohort counts them."""
    found = np.zeros((2, 2, e.BINS))
    bins = np.array([e.bin_of(each) for each in part["probability"]])
    np.add.at(found, (part["prediction"], part["label"], bins), 1)
    return found


def served(part: Columns) -> e.Array:
    """A chunk's answers, as its window's sketches give them back."""
    rows = []
    for predicted in (0, 1):
        fold = NumericalFold()
        fold.fold(part["probability"][part["prediction"] == predicted])
        rows.append(e.served_bins(fold.summary()))
    return np.stack(rows)


def parts(columns: Columns) -> tuple[list[Columns], int]:
    """The chunks, and how many of them are the reference."""
    count = len(columns["label"]) // CHUNK
    found = [{name: each[n * CHUNK : (n + 1) * CHUNK] for name, each in columns.items()} for n in range(count)]
    return found, sum(part["phase"][0] == "reference" for part in found)


def ours(columns: Columns, *, recent: bool) -> Result:
    """Our estimates of every chunk after the reference."""
    chunks, reference = parts(columns)
    began = time.process_time()
    cohorts = [outcomes(part) for part in chunks]
    fixed = e.calibrate(cohorts[:reference])
    found: dict[str, dict[str, list[float]]] = {name: {"value": [], "lower": [], "upper": []} for name in FIGURES}
    for place in range(reference, len(chunks)):
        newest = cohorts[: place - 1][-20_000 // CHUNK :]
        calibration = e.calibrate(newest) if recent else fixed
        estimates = e.estimate(np.zeros((2, 2, e.BINS)), served(chunks[place]), calibration, seed=place)
        for name in FIGURES:
            for bound in ("value", "lower", "upper"):
                found[name][bound].append(getattr(estimates[name], bound))
    return Result(f"Tailrace, {'recent' if recent else 'fixed'}", found, time.process_time() - began)


def auc(scores: Floats, labels: npt.NDArray[np.int64]) -> float:
    """The exact ROC AUC."""
    from scipy import stats

    ranks, positive = stats.rankdata(scores), labels == 1
    many = positive.sum()
    return float((ranks[positive].sum() - many * (many + 1) / 2) / (many * (len(labels) - many)))


def realised(columns: Columns) -> dict[str, list[float]]:
    """The exact figures of every chunk after the reference."""
    chunks, reference = parts(columns)
    return {
        "accuracy": [float((part["prediction"] == part["label"]).mean()) for part in chunks[reference:]],
        "roc_auc": [auc(part["probability"], part["label"]) for part in chunks[reference:]],
    }


def peer(task: str, columns: Columns) -> Result:
    """What nannyml makes of the same rows, in its own environment."""
    rows = dict(columns) | {"chunk": np.arange(len(columns["label"])) // CHUNK}
    with tempfile.TemporaryDirectory() as folder:
        source, answer = Path(folder) / "rows.parquet", Path(folder) / "answer.json"
        pq.write_table(pa.table(rows), source)
        script = Path(__file__).with_name("nannyml_peer.py")
        environment = ["uv", "run", "--isolated", "--no-project", "--python", "3.11", "--with", NANNYML]
        command = [
            *environment,
            "--with",
            "pyarrow",
            "--with",
            "statsmodels",
            "python",
            str(script),
            task,
            str(source),
            str(answer),
        ]
        quiet = os.environ | {"NML_DISABLE_USAGE_LOGGING": "1"}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=quiet)
        found = json.loads(answer.read_text(encoding="utf-8"))
    return Result(f"nannyml {found['version']}", found["figures"], found["cpu_seconds"])


def numbers(moves: Sequence[float], reference: int, seed: int = 1) -> Columns:
    """A regression that is worse the further `x2` lies from 0, and for each chunk how far its inputs have moved."""
    chance = np.random.default_rng(seed)
    moved = np.repeat(moves, CHUNK)
    inputs = chance.normal(moved[:, None], 1.0, (len(moved), 4))
    prediction = 2 * inputs[:, 0] + inputs[:, 1]
    label = prediction + chance.normal(size=len(moved)) * (0.5 + np.abs(inputs[:, 2]))
    columns: Columns = {f"x{place}": inputs[:, place] for place in range(4)}
    phase = np.where(np.arange(len(moved)) < reference * CHUNK, "reference", "analysis")
    return columns | {"prediction": prediction, "label": label, "phase": phase}


def ours_of_numbers(columns: Columns, sampled: int = 500, learned: int = 2_000) -> Result:
    """Our estimates from a sample of each chunk, learned on the newest labelled rows of the reference."""
    chunks, reference = parts(columns)
    began = time.process_time()
    last = _rows(chunks[reference - 1])
    lesson, losses = Table(last[0].values[-learned:], last[0].categorical), last[1][-learned:]
    found: dict[str, dict[str, list[float]]] = {
        name: {"value": [], "lower": [], "upper": []} for name in ("mae", "rmse")
    }
    for place, part in enumerate(chunks[reference:]):
        chosen = np.random.default_rng(place).choice(CHUNK, sampled, replace=False)
        rows = _rows(part)[0]
        window = Table(rows.values[chosen], rows.categorical)
        mae = mean_loss(0.0, 0, CHUNK, foretell(Lessons(lesson, losses), window))
        rmse = root(mean_loss(0.0, 0, CHUNK, foretell(Lessons(lesson, losses**2), window)))
        for name, estimated in (("mae", mae), ("rmse", rmse)):
            for bound in ("value", "lower", "upper"):
                found[name][bound].append(getattr(estimated, bound))
    return Result("Tailrace, from 500 sampled rows", found, time.process_time() - began)


def _rows(part: Columns) -> tuple[Table, Floats]:
    names = [name for name in part if name.startswith("x")] + ["prediction"]
    values = np.column_stack([part[name] for name in names])
    return Table(values, np.zeros(len(names), dtype=np.bool_)), np.abs(part["label"] - part["prediction"])


def coverage_of_numbers(seeds: int) -> None:
    """How often intervals of a regression hold, over many streams, by how far the inputs have moved."""
    moves = (0.0, 0.25, 0.5, 0.75, 1.0)
    inside: dict[str, list[list[bool]]] = {name: [[] for _ in moves] for name in ("mae", "rmse")}
    for seed in range(seeds):
        columns = numbers([0.0, 0.0, *moves], 2, seed)
        found, truth = ours_of_numbers(columns).figures, realised_of_numbers(columns)
        for name, lists in inside.items():
            ends = zip(found[name]["lower"], truth[name], found[name]["upper"], lists, strict=True)
            for lower, real, upper, held in ends:
                held.append(lower <= real <= upper)
    print(
        f"\nRegression, 95 % intervals that hold, {seeds} streams\n| inputs moved by, sd | MAE | RMSE |\n|---|---|---|"
    )
    for place, move in enumerate(moves):
        shares = (sum(inside[name][place]) / seeds for name in ("mae", "rmse"))
        print(f"| {move} | {' | '.join(f'{share:.0%}' for share in shares)} |", flush=True)


def realised_of_numbers(columns: Columns) -> dict[str, list[float]]:
    """The exact figures of every chunk after the reference."""
    chunks, reference = parts(columns)
    losses = [_rows(part)[1] for part in chunks[reference:]]
    return {
        "mae": [float(each.mean()) for each in losses],
        "rmse": [float(np.sqrt((each**2).mean())) for each in losses],
    }


def report(title: str, truth: Mapping[str, Sequence[float]], results: Sequence[Result]) -> None:
    """A table: how far the estimates are off on average, and how often the truth lies in the interval."""
    chunks = len(next(iter(truth.values())))
    print(f"\n{title}, {chunks} chunks")
    heads = [f"{name}: mean error | inside | mean width" for name in truth]
    print(f"| estimator | {' | '.join(heads)} | CPU s |\n|{'---|' * (3 * len(truth) + 2)}")
    for each in results:
        cells = [part for name in truth for part in _cells(truth[name], each.figures[name])]
        print(f"| {each.name} | {' | '.join(cells)} | {each.cpu_seconds:.1f} |", flush=True)


def _cells(truth: Sequence[float], found: Mapping[str, Sequence[float]]) -> tuple[str, str, str]:
    real, value, lower, upper = (np.asarray(each) for each in (truth, found["value"], found["lower"], found["upper"]))
    inside = (lower <= real) & (real <= upper)
    return f"{np.abs(value - real).mean():.4f}", f"{inside.mean():.0%}", f"{(upper - lower).mean():.4f}"


def part_of(values: Mapping[str, Any], chosen: slice) -> dict[str, Any]:
    """Some of the chunks."""
    return {name: part_of(each, chosen) if isinstance(each, Mapping) else each[chosen] for name, each in values.items()}


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without-peer", action="store_true")
    parser.add_argument(
        "--streams", type=int, default=0, help="only how often a regression's intervals hold, on so many"
    )
    asked = parser.parse_args()
    if asked.streams:
        coverage_of_numbers(asked.streams)
        print(f"\nload average {os.getloadavg()[0]:.1f}")
        return
    peers: list[Callable[[str, Columns], Result]] = [] if asked.without_peer else [peer]
    rows = employment()
    results = [ours(rows, recent=False), ours(rows, recent=True), *(ask("classification", rows) for ask in peers)]
    report("Employment", realised(rows), results)
    moves = [(0.0, 1.0)] * 10 + [(0.2 * step, 1.0) for step in range(1, 11)] + [(0.0, -0.2)] * 6
    rows = synthetic(moves, reference=10)
    results = [ours(rows, recent=False), ours(rows, recent=True), *(ask("classification", rows) for ask in peers)]
    for title, chosen in (("Inputs move", slice(0, 10)), ("The concept turns", slice(10, 16))):
        cut = [each._replace(figures=part_of(each.figures, chosen)) for each in results]
        report(title, part_of(realised(rows), chosen), cut)
    rows = numbers([0.0] * 10 + [0.1 * step for step in range(1, 11)], reference=10)
    results = [ours_of_numbers(rows), *(ask("regression", rows) for ask in peers)]
    report("Regression, inputs move", realised_of_numbers(rows), results)
    print(f"\nload average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
