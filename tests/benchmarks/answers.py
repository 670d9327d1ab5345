"""How often the answers of new versions pass for drifted, when nothing moves.

    uv run python -m tests.benchmarks.answers --examples 2000 --events 1000 --versions 12

Each version is trained on examples of a world of its own draw and judged in ten windows of the same world. Its reference holds
the answers of a twin, which was trained without the newest fifth: what is shown is whether the two differ by more than chance
does. Values are given as parts of their thresholds.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

from tailrace_contracts.events import Slice, WindowSpan, WindowSummarised
from tailrace_contracts.ranges import LogRanges
from tailrace_contracts.spec import BatchLearner, parse_spec
from tailrace_models import OnnxModel
from tailrace_monitoring.domain.yardsticks import Answers, Basis, Yardsticks
from tailrace_statistics.reference import Reference
from tailrace_training.adapters.torch_trainer import train
from tailrace_training.adapters.trainer_process import lay_out
from tailrace_training.domain.jobs import ANSWERS, ONNX_FILE, WEIGHTS_FILE, Job

FEATURES, WINDOWS = 16, 10
SPEC = parse_spec(
    {
        "model": "answers",
        "owner": "bench",
        "features": [{"name": f"x{number}", "type": "numerical"} for number in range(FEATURES)],
        "label": {"name": "y"},
        "monitors": {"multivariate": None},
    }
)
WEIGHTS = np.random.default_rng(5).normal(scale=0.5, size=FEATURES)
Rows = npt.NDArray[np.float32]


def world(random: np.random.Generator, rows: int) -> tuple[Rows, Rows]:
    """Features, and labels that depend on them by chance."""
    features = random.normal(size=(rows, FEATURES)).astype(np.float32)
    return features, (random.random(rows) < 1 / (1 + np.exp(-(features @ WEIGHTS)))).astype(np.float32)


def version(number: int, examples: int, random: np.random.Generator) -> tuple[OnnxModel, Basis]:
    """A version, and what it is measured against: its reference's answers."""
    learner = BatchLearner(seed=number)
    job = Job(run_id="run", learner=learner, numerical=(True,) * FEATURES, held_out=round(examples * 0.2))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        lay_out(job, *world(random, examples), folder)
        train(job, folder, lambda _: None)
        model = OnnxModel.from_bytes((folder / ONNX_FILE).read_bytes(), SPEC)
        evaluated = load((folder / WEIGHTS_FILE).read_bytes())[ANSWERS].tolist()
    rows = [{"x0": float(each)} for each in random.normal(size=1_000)]
    reference = Reference.build(SPEC, rows, evaluated=evaluated)
    answers = Answers(1, reference.answers, reference.answer_columns())
    columns = {"x0": reference.columns["x0"]}
    return model, Basis(f"version {number}", columns, {}, answers)


def window(number: int, model: OnnxModel, features: Rows) -> WindowSummarised:
    """What the version answers in a window, as ingestion summarises it."""
    probabilities = model.predict_matrix(features).probabilities
    answered = Reference.build(SPEC, [], evaluated=[] if probabilities is None else probabilities.tolist())
    start = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=number)
    part = Slice(arm="champion", version=1, events=len(features), columns=answered.answers)
    return WindowSummarised(
        model=SPEC.model,
        spec_revision=1,
        window=WindowSpan(start=start, end=start + timedelta(days=1)),
        events=len(features),
        columns={},
        slices=(part,),
        closed=True,
        derived_from=LogRanges(),
    )


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--examples", type=int, default=2_000)
    parser.add_argument("--events", type=int, default=1_000)
    parser.add_argument("--versions", type=int, default=12)
    asked = parser.parse_args()
    random, parts, over = np.random.default_rng(6), dict[str, list[float]](), 0
    for number in range(asked.versions):
        model, basis = version(number, asked.examples, random)
        yardsticks = Yardsticks()
        for day in range(WINDOWS):
            readings = yardsticks.read(window(day, model, world(random, asked.events)[0]), basis, SPEC)
            over += any(each.value > each.threshold for each in readings)
            for each in readings:
                parts.setdefault(each.key, []).append(each.value / each.threshold)
    found = {key: [round(float(np.mean(each)), 2), round(max(each), 2)] for key, each in parts.items()}
    windows = asked.versions * WINDOWS
    print(json.dumps({"windows": windows, "over": over, "mean and largest": found, "load": os.getloadavg()[0]}))


if __name__ == "__main__":
    main()
