"""False alarms against the budget with everything on that draws on it, on a stream that stands still.

    uv run python -m tests.benchmarks.false_alarms_together --references 100 --runs-each 10 --processes 2

As `false_alarms steady`, on its stream `mixed`, and beside the eight columns: two protected attributes, of which three groups are
large enough to be judged; the classifier on row samples; what a version answers, against 4,000 held-out answers; and
the labels of each window's cohort, all known when it closes. Odd references are those of a regression, even ones of classes.
All is judged by monitoring's own code with the spec's defaults. An alert is what monitoring would publish: one for all columns,
groups and answers that have moved in the same window, one for the rows together, one for the labels.

Each line of JSON that is printed is one reference; the last one is the sum.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from tailrace_contracts.events import ColumnSummary, SampledRow, Slice, WindowSpan, WindowSummarised
from tailrace_contracts.ranges import LogRanges
from tailrace_contracts.spec import ModelSpec, parse_spec
from tailrace_monitoring.adapters.sklearn_learners import tell_apart
from tailrace_monitoring.domain.cohorts import Cohort
from tailrace_monitoring.domain.label_drift import LabelDrift
from tailrace_monitoring.domain.multivariate import RowDrift, tell
from tailrace_monitoring.domain.windows import DriftState
from tailrace_monitoring.domain.yardsticks import Answers, Basis, Labels, Yardsticks, chance_together
from tailrace_statistics.errors import ErrorSums
from tailrace_statistics.fairness import GroupCounts
from tailrace_statistics.labels import column_of_classes, rows_of_classes
from tests.benchmarks.drift_peers import Column, Table
from tests.benchmarks.false_alarms import DAYS, EPOCH, REFERENCE, WINDOW, a_spec, basis, interval, mixed, summaries

HELD_OUT, SAMPLED = 4_000, 200
PROTECTED = ("plan", "region")
WHAT = ("columns", "rows", "labels")
Numbers = npt.NDArray[np.float64]


def spec_of(table: Table, *, regression: bool) -> ModelSpec:
    """The spec of the stream's columns, with all of its monitors."""
    described = a_spec(table).model_dump(mode="json", include={"model", "owner", "features"})
    return parse_spec(
        described
        | {
            "protected": PROTECTED,
            "label": {"name": "truth"} | ({"loss_scale": 1.0} if regression else {}),
            "task": "regression" if regression else "binary",
        }
    )


def hidden(table: Table) -> Numbers:
    """What labels and answers depend on."""
    plan = np.asarray(table["plan"], dtype=np.float64)
    return np.log1p(table["income"]) + 0.7 * np.nan_to_num(table["delay"]) - plan + 0.3 * table["noise"] - 1.0


def labels_of(table: Table, random: np.random.Generator, *, regression: bool) -> Numbers:
    """The truth: numbers with skewed noise, or 1 and 0."""
    level = hidden(table)
    if regression:
        return np.asarray(level + random.gamma(2.0, size=len(level)))
    return (random.random(len(level)) < 1 / (1 + np.exp(-level))).astype(np.float64)


def answers_of(table: Table, *, regression: bool) -> dict[str, Column]:
    """What a version answers: numbers, or classes with their probabilities."""
    level = 0.9 * hidden(table) + 0.1
    if regression:
        return {"prediction": level}
    probability = 1 / (1 + np.exp(-level))
    return {"prediction": (probability > 0.5).astype(np.int64), "probability": probability}


def reference_of(name: str, random: np.random.Generator, *, regression: bool) -> tuple[Basis, Table]:
    """A reference with answers and labels."""
    table, held_out = mixed(random, REFERENCE), mixed(random, HELD_OUT)
    answered = basis("", answers_of(held_out, regression=regression))
    values = labels_of(table, random, regression=regression)
    if regression:
        labels = Labels(basis("", {"truth": values}).columns["truth"], values)
    else:
        positives = int(values.sum())
        labels = Labels(column_of_classes(positives, REFERENCE), rows_of_classes(positives, REFERENCE, REFERENCE))
    answers = Answers(1, answered.columns, answered.rows)
    return basis(name, table)._replace(answers=answers, labels=labels), table


def window_of(day: int, table: Table, *, regression: bool) -> WindowSummarised:
    """A closed window as ingestion makes it: all columns, the groups, what the version answered, and a sample of rows."""
    start, size = EPOCH + timedelta(days=day), len(table["noise"])
    answered = Slice.model_construct(
        arm="champion",
        version=1,
        attribute=None,
        group=None,
        events=size,
        columns=summaries(answers_of(table, regression=regression)),
    )
    return WindowSummarised.model_construct(
        model="m",
        spec_revision=1,
        window=WindowSpan(start=start, end=start + timedelta(days=1)),
        events=size,
        columns=summaries(table),
        slices=(answered, *_groups(table)),
        sample=tuple(
            SampledRow(rank=row / SAMPLED, partition=0, offset=row, values=_row(table, row)) for row in range(SAMPLED)
        ),
        closed=True,
        derived_from=LogRanges(),
    )


def _groups(table: Table) -> Iterator[Slice]:
    for attribute in PROTECTED:
        for group in np.unique(table[attribute]):
            members = table[attribute] == group
            part: dict[str, ColumnSummary] = summaries({name: column[members] for name, column in table.items()})
            yield Slice.model_construct(
                arm=None,
                version=None,
                attribute=attribute,
                group=str(group),
                events=int(members.sum()),
                columns=part,
            )


def _row(table: Table, row: int) -> dict[str, float | str | None]:
    return {
        name: str(column[row]) if column.dtype.kind != "f" else float(column[row]) if np.isfinite(column[row]) else None
        for name, column in table.items()
    }


def cohort_of(window: WindowSpan, values: Numbers, *, regression: bool) -> Cohort:
    """A closed cohort with these labels."""
    cohort = Cohort(span=window, arm="champion", version=1, closed=True)
    if not regression:
        positives = int(values.sum())
        cohort.total = GroupCounts(tp=positives, tn=len(values) - positives)
        return cohort
    for value in values.tolist():
        cohort.sketched.count(value, 1)
        cohort.numbers = cohort.numbers.plus(ErrorSums.of(value, 0.0))
    cohort.errors = cohort.numbers
    return cohort


class Judge:
    """Monitoring's judgement of one run."""

    def __init__(self, against: Basis, spec: ModelSpec, yardsticks: Yardsticks) -> None:
        self._against, self._spec, self._yardsticks = against, spec, yardsticks
        self._drift, self._rows, self._labels = DriftState(), RowDrift(), LabelDrift()
        self.alerts: Counter[str] = Counter()

    def take(self, window: WindowSummarised, cohort: Cohort) -> None:
        """One window, and the cohort of its predictions."""
        spec, monitors = self._spec, self._spec.monitors
        assert monitors.drift is not None
        readings = self._yardsticks.read(window, self._against, spec)
        measured = self._drift.judge(window, readings, monitors.drift)
        self.alerts["columns"] += any(each.alert for each in measured)
        told = tell(window, self._against.rows, spec, chance_together(spec, self._against), tell_apart)
        shown = bool(self._drift.streaks)
        self.alerts["rows"] += self._rows.judge(window.window.start, told, "", shown=shown)
        reading = self._yardsticks.read_labels(cohort.labels, self._against, spec)
        assert reading is not None
        self.alerts["labels"] += self._labels.judge(cohort, reading)


def of_reference(number: int, runs: int) -> dict[str, Any]:
    """The alerts of so many runs on one reference."""
    regression, started = number % 2 == 1, time.process_time()
    random = np.random.default_rng([77, number])
    against, table = reference_of(f"together {number}", random, regression=regression)
    spec, yardsticks = spec_of(table, regression=regression), Yardsticks()
    alerts: Counter[str] = Counter()
    for _ in range(runs):
        judge = Judge(against, spec, yardsticks)
        for day in range(DAYS):
            drawn = mixed(random, WINDOW)
            window = window_of(day, drawn, regression=regression)
            values = labels_of(drawn, random, regression=regression)
            judge.take(window, cohort_of(window.window, values, regression=regression))
        alerts += judge.alerts
    counts = {what: alerts[what] for what in WHAT}
    task = "regression" if regression else "classes"
    return {"reference": number, "task": task, "runs": runs, **counts, "cpu": round(time.process_time() - started)}


def summed(lines: list[dict[str, Any]]) -> dict[str, object]:
    """Alerts per run over all references, and of either task."""
    by_task = {
        task: round(sum(sum(each[what] for what in WHAT) for each in chosen) / sum(each["runs"] for each in chosen), 3)
        for task in ("classes", "regression")
        if (chosen := [each for each in lines if each["task"] == task])
    }
    runs = sum(each["runs"] for each in lines)
    each_reference = [sum(each[what] for what in WHAT) / each["runs"] for each in lines]
    return {
        "runs": runs,
        "alerts per 30 days": round(statistics.mean(each_reference), 3),
        "interval": interval(each_reference),
        **by_task,
        **{what: round(sum(each[what] for each in lines) / runs, 3) for what in WHAT},
        "cpu seconds": sum(each["cpu"] for each in lines),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Print one line of JSON for each reference, and their sum."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--references", type=int, default=100)
    parser.add_argument("--runs-each", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    lines: list[dict[str, Any]] = []
    with ProcessPoolExecutor(asked.processes) as pool:
        for line in pool.map(of_reference, range(asked.references), [asked.runs_each] * asked.references):
            print(json.dumps(line), flush=True)
            lines.append(line)
    print(json.dumps(summed(lines)), flush=True)


if __name__ == "__main__":
    main()
