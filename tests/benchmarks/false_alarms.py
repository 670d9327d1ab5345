"""False alarms against the budget on streams that stand still, and how soon a stream that moves is found.

    uv run python -m tests.benchmarks.false_alarms steady [STREAM ...] --runs 1000
    uv run python -m tests.benchmarks.false_alarms moving --runs 50
    uv run python -m tests.benchmarks.false_alarms evidently

A run is 30 daily windows of 1,024 events, one after the other judged by monitoring as it judges them, with the spec's
defaults: distance `auto`, `expected_false_alarms: 1 per 30 days`. Every 10 runs there is a new reference of 20,000 rows, and
its thresholds are calibrated from them. Beside it, on some of the runs, on the same windows: what the default rules of two
other systems call drifted (`drift_peers`); they have no notion of an alert, so a column that becomes drifted counts, and
several in the same window count once, as with us.

`evidently` compares our writing of Evidently's rule with the package itself, on windows of all streams.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tailrace_contracts.events import CategoricalSummary, ColumnSummary, NumericalSummary, WindowSpan, WindowSummarised
from tailrace_contracts.ranges import LogRanges
from tailrace_contracts.spec import DriftMonitor, ModelSpec, parse_spec
from tailrace_monitoring.domain.windows import DriftState
from tailrace_monitoring.domain.yardsticks import Basis, Yardsticks
from tailrace_statistics import sketches
from tailrace_statistics.columns import NumericalFold
from tests.benchmarks import drift_peers
from tests.benchmarks.drift_peers import Column, Table

DATA = Path(__file__).parents[2] / "libs/cli/src/tailrace_cli/data"
REFERENCE, WINDOW, DAYS = 20_000, 1_024, 30
CHANGE = 10
EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
PEERS = {"Radicalbit": drift_peers.radicalbit, "Evidently": drift_peers.evidently}

Draw = Callable[[np.random.Generator, int], dict[str, Column]]


# ---------------------------------------------------------------- streams


def independent(random: np.random.Generator, size: int) -> dict[str, Column]:
    """Eight normal columns that have nothing to do with each other."""
    return {f"x{each}": column for each, column in enumerate(random.normal(size=(8, size)))}


def correlated(random: np.random.Generator, size: int) -> dict[str, Column]:
    """Eight normal columns, each two of which correlate at 0.9."""
    common = random.normal(size=size)
    return {f"x{each}": 0.9**0.5 * common + 0.1**0.5 * random.normal(size=size) for each in range(8)}


def mixed(random: np.random.Generator, size: int) -> dict[str, Column]:
    """Skewed, repeated, missing, common and rare values, all of which depend on one hidden number."""
    hidden, own = random.normal(size=size), random.normal(size=(8, size))
    z = 0.6 * hidden + 0.8 * own
    u = _normal_cdf(z)
    late = np.where(u[3] < 0.05, np.nan, np.exp(0.5 * z[3]))
    return {
        "income": np.exp(z[0]),
        "children": np.floor(-np.log1p(-u[1]) * 1.5),
        "spent": np.where(u[2] < 0.7, 0.0, np.exp(z[2])),
        "delay": late,
        "plan": np.searchsorted([0.6, 0.9, 0.98], u[4]).astype(np.int64),
        "region": np.searchsorted(np.cumsum(1 / np.arange(1, 26))[:-1] / np.sum(1 / np.arange(1, 26)), u[5]).astype(
            np.int64
        ),
        "fraud": (u[6] < 0.01).astype(np.int64),
        "noise": z[7],
    }


def _normal_cdf(z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    from scipy.special import ndtr

    return np.asarray(ndtr(z))


def rows_of(name: str) -> Draw:
    """Rows of a demo's data in random order: their own dependence, and no drift."""
    from pyarrow import parquet

    table = parquet.read_table(DATA / f"{name}.parquet")
    last = {"employment": 16, "weather": 8}[name]
    columns: dict[str, Column] = {}
    for field in table.column_names[:last]:
        column = table.column(field).combine_chunks()
        words = hasattr(column, "indices")
        columns[field] = np.asarray(column.indices, dtype=np.int64) if words else np.asarray(column, dtype=np.float64)
    size = table.num_rows

    def draw(random: np.random.Generator, count: int) -> dict[str, Column]:
        rows = random.integers(0, size, count)
        return {field: column[rows] for field, column in columns.items()}

    return draw


STREAMS: dict[str, Callable[[], Draw]] = {
    "independent": lambda: independent,
    "correlated": lambda: correlated,
    "mixed": lambda: mixed,
    "employment": lambda: rows_of("employment"),
    "weather": lambda: rows_of("weather"),
}


# ---------------------------------------------------------------- judging


def summaries(table: Table) -> dict[str, ColumnSummary]:
    """The columns of a window."""
    return {name: _summary(column) for name, column in table.items()}


def _summary(column: Column) -> ColumnSummary:
    """What of a column's summary drift reads: the counts, and the same sketch. The moments are of a reference only."""
    if column.dtype.kind == "f":
        present = column[np.isfinite(column)]
        sketch = sketches.empty()
        sketches.fold(sketch, present)
        count, missing = len(present), len(column) - len(present)
        return NumericalSummary.model_construct(count=count, missing=missing, quantiles=sketches.to_text(sketch))
    names, counts = np.unique(column, return_counts=True)
    by_name = {str(name): int(count) for name, count in zip(names, counts, strict=True) if name >= 0}
    count = sum(by_name.values())
    return CategoricalSummary.model_construct(count=count, missing=len(column) - count, counts=by_name)


def _whole_summary(column: Column) -> ColumnSummary:
    """As ingestion summarises a column."""
    if column.dtype.kind != "f":
        return _summary(column)
    fold = NumericalFold()
    fold.fold(column)
    return fold.summary()


def basis(name: str, table: Table) -> Basis:
    """A reference of these rows."""
    rows = {
        key: column if column.dtype.kind == "f" else [None if value < 0 else str(value) for value in column]
        for key, column in table.items()
    }
    return Basis(name, {key: _whole_summary(column) for key, column in table.items()}, rows)  # type: ignore[arg-type]  # lists are invariant


def a_spec(table: Table, consecutive: int = 1) -> ModelSpec:
    """A spec for these columns, all else by default."""
    features = [
        {"name": name, "type": "numerical"}
        if column.dtype.kind == "f"
        else {"name": name, "type": "categorical", "categories": [str(each) for each in range(40)]}
        for name, column in table.items()
    ]
    return parse_spec(
        {
            "model": "m",
            "owner": "o",
            "features": features,
            "label": {"name": "label"},
            "monitors": {"multivariate": None, "drift": {"consecutive_windows": consecutive}},
        }
    )


class Judge:
    """Monitoring's judgement of one run."""

    def __init__(self, against: Basis, spec: ModelSpec, yardsticks: Yardsticks) -> None:
        self._against, self._spec, self._yardsticks = against, spec, yardsticks
        self._state = DriftState()
        self._monitor = spec.monitors.drift or DriftMonitor()

    def alerts(self, day: int, table: Table) -> bool:
        """Whether the window of this day raises an alert."""
        start = EPOCH + timedelta(days=day)
        window = WindowSummarised(
            model="m",
            spec_revision=1,
            window=WindowSpan(start=start, end=start + timedelta(days=1)),
            events=len(next(iter(table.values()))),
            columns=summaries(table),
            closed=True,
            derived_from=LogRanges(),
        )
        readings = self._yardsticks.read(window, self._against, self._spec)
        return any(each.alert for each in self._state.judge(window, readings, self._monitor))


class Peer:
    """Another system's judgement of one run: an alert for columns that become drifted."""

    def __init__(self, rule: Callable[[Table, Table], Mapping[str, bool]], reference: Table) -> None:
        self._rule, self._reference = rule, {name: np.sort(column) for name, column in reference.items()}
        self._before: set[str] = set()

    def alerts(self, _day: int, table: Table) -> bool:
        """Whether a column has become drifted in this window."""
        now = {name for name, drifted in self._rule(self._reference, table).items() if drifted}
        fresh, self._before = now - self._before, now
        return bool(fresh)


# ---------------------------------------------------------------- without drift


class Size(NamedTuple):
    """How much is simulated, and of what size: runs on all references, rows of a reference, events of a window."""

    runs: int = 1_000
    peer_runs: int = 100
    references: int = 100
    rows: int = REFERENCE
    events: int = WINDOW
    consecutive: int = 1


def steady(name: str, size: Size) -> dict[str, object]:
    """Alerts per run of 30 days on one stream that stands still. Without runs of ours, the peers' are on the same windows."""
    draw, started = STREAMS[name](), time.process_time()
    ours: list[float] = []
    theirs: dict[str, list[float]] = {peer: [] for peer in PEERS}
    each, peers_each = size.runs // size.references, size.peer_runs // size.references
    for number in range(size.references):
        random = np.random.default_rng([hash_of(name), number])
        reference = draw(random, size.rows)
        against, spec = basis(f"{name} {number}", reference), a_spec(reference, size.consecutive)
        yardsticks, alerts = Yardsticks(), 0
        for run in range(max(each, peers_each)):
            judge, windows = Judge(against, spec, yardsticks), [draw(random, size.events) for _ in range(DAYS)]
            if run < each:
                alerts += sum(judge.alerts(day, window) for day, window in enumerate(windows))
            for peer, rule in PEERS.items() if run < peers_each else ():
                judged = Peer(rule, reference)
                theirs[peer].append(sum(judged.alerts(day, window) for day, window in enumerate(windows)))
        ours += [alerts / each] if each else []
        if number % 10 == 9:
            print(name, number + 1, *(round(statistics.mean(ours), 3) for _ in ours[:1]), file=sys.stderr, flush=True)
    return {
        "stream": name,
        **size._asdict(),
        **{who: _described(found) for who, found in (("Tailrace", ours), *theirs.items()) if found},
        "cpu seconds": round(time.process_time() - started),
        "load": round(os.getloadavg()[0], 1),
    }


def _described(alerts: list[float]) -> dict[str, object]:
    low, high = (float(each) for each in np.quantile(alerts, (0.05, 0.95)))
    return {
        "alerts per 30 days": round(statistics.mean(alerts), 3),
        "interval": interval(alerts),
        "nine of ten references": [round(low, 2), round(high, 2)],
    }


def interval(by_reference: list[float]) -> list[float]:
    """Of the mean, at 95 %, by the bootstrap of whole references: runs on one reference share its luck."""
    random = np.random.default_rng(1)
    means = random.choice(by_reference, size=(10_000, len(by_reference))).mean(axis=1)
    return [round(float(each), 3) for each in np.quantile(means, (0.025, 0.975))]


def hash_of(name: str) -> int:
    """A seed that stays the same between processes."""
    return int.from_bytes(name.encode()[:6], "big")


# ---------------------------------------------------------------- with drift


class Move(NamedTuple):
    """A change of a stream: the window of a day, `days` after the change began."""

    stream: str
    change: Callable[[dict[str, Column], int, np.random.Generator], dict[str, Column]]


def _shifted(by: float) -> Callable[[dict[str, Column], int, np.random.Generator], dict[str, Column]]:
    return lambda table, _, __: table | {"x0": table["x0"] + by}


def _plan(table: dict[str, Column], _: int, random: np.random.Generator) -> dict[str, Column]:
    moved = random.random(len(table["plan"])) < 0.08
    return table | {"plan": np.where(moved, 2, table["plan"])}


def _gone(table: dict[str, Column], _: int, random: np.random.Generator) -> dict[str, Column]:
    return table | {"noise": np.where(random.random(len(table["noise"])) < 0.01, np.nan, table["noise"])}


MOVES = {
    "mean of one column +0.15 sd": Move("independent", _shifted(0.15)),
    "deviation of one column x 1.2": Move("independent", lambda table, _, __: table | {"x0": table["x0"] * 1.2}),
    "mean of all columns +0.1 sd": Move(
        "correlated", lambda table, _, __: {name: column + 0.1 for name, column in table.items()}
    ),
    "8 % of one category's events move": Move("mixed", _plan),
    "1 % of a column missing": Move("mixed", _gone),
    "mean of one column, +0.02 sd a day": Move(
        "independent", lambda table, day, __: table | {"x0": table["x0"] + 0.02 * day}
    ),
    "mean of one column +0.08 sd": Move("independent", _shifted(0.08)),
    "deviation of one column x 1.08": Move("independent", lambda table, _, __: table | {"x0": table["x0"] * 1.08}),
}


def moving(runs: int) -> Iterator[dict[str, object]]:
    """How many windows after a change on the eleventh day the first new alert comes, within the twenty that are left.

    What is new depends on the window before only, so the judgement begins on the eve of the change.
    """
    for place, (name, move) in enumerate(MOVES.items()):
        draw = STREAMS[move.stream]()
        delays: dict[str, list[int | None]] = {who: [] for who in ("Tailrace", *PEERS)}
        for number in range(runs):
            random = np.random.default_rng([place, number])
            if number % 10 == 0:
                reference = draw(random, REFERENCE)
                against, spec, yardsticks = basis(f"{name} {number}", reference), a_spec(reference), Yardsticks()
            judge = Judge(against, spec, yardsticks)
            waiting: dict[str, Callable[[int, Table], bool]] = {"Tailrace": judge.alerts}
            waiting |= {peer: Peer(rule, reference).alerts for peer, rule in PEERS.items()}
            for day in range(CHANGE - 1, DAYS):
                window = draw(random, WINDOW)
                moved = move.change(window, day - CHANGE + 1, random) if day >= CHANGE else window
                found = [who for who, alerts in waiting.items() if alerts(day, moved) and day >= CHANGE]
                for who in found:
                    delays[who].append(day - CHANGE + 1)
                    del waiting[who]
            for who in waiting:
                delays[who].append(None)
        yield {"change": name, **{who: _delay(each) for who, each in delays.items()}}


def _delay(delays: list[int | None]) -> str:
    """In windows: 1 is the first window after the change."""
    ordered = sorted(DAYS if each is None else each for each in delays)
    missed = delays.count(None)
    middle, late = (ordered[int(part * len(ordered))] for part in (0.5, 0.9))
    words = ["-" if each == DAYS else str(each) for each in (middle, late)]
    return f"median {words[0]}, nine of ten within {words[1]}, missed {missed} of {len(delays)}"


# ---------------------------------------------------------------- Evidently itself


def compare_with_evidently(windows_each: int = 12) -> dict[str, object]:
    """On how many windows our writing of Evidently's rule says the same of every column as the package."""
    import pyarrow as pa
    from pyarrow import parquet

    def write(path: Path, table: Table) -> None:
        plain = {
            name: column if column.dtype.kind == "f" else [str(each) for each in column]
            for name, column in table.items()
        }
        parquet.write_table(pa.table(plain), path)

    same = total = columns = 0
    for make in STREAMS.values():
        draw, random = make(), np.random.default_rng(5)
        reference = draw(random, REFERENCE)
        windows: list[Table] = [draw(random, WINDOW) for _ in range(windows_each)]
        windows[::2] = [_at_the_brink(each, random) for each in windows[::2]]
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / "reference.parquet", reference)
            for number, window in enumerate(windows):
                write(Path(folder) / f"window-{number:03}.parquet", window)
            answer = ask_evidently(Path(folder))
        for window, theirs in zip(windows, answer["drifted"].values(), strict=True):
            ours = [column for column, drifted in sorted(drift_peers.evidently(reference, window).items()) if drifted]
            same, total = same + (ours == theirs), total + 1
            columns += len(theirs)
    return {"windows": total, "same": same, "drifted columns": columns}


def _at_the_brink(table: Table, random: np.random.Generator) -> Table:
    """Moved by about Evidently's threshold, so that columns lie on either side of it."""
    return {
        name: column + 0.1 * np.nanstd(column)
        if column.dtype.kind == "f"
        else np.where(random.random(len(column)) < 0.15, 0, column)
        for name, column in table.items()
    }


def ask_evidently(folder: Path) -> dict[str, Any]:
    """Run the package on a folder of windows."""
    packages = ("evidently==0.7.21", "pandas<3", "pyarrow")
    command = ["uv", "run", "-q", "--isolated", "--no-project", "--python", "3.11"]
    command += [part for package in packages for part in ("--with", package)]
    script = str(Path(__file__).with_name("evidently_peer.py"))
    done = subprocess.run([*command, "python", script, str(folder)], capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def main() -> None:
    """Print one line of JSON for each result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=("steady", "moving", "evidently"))
    parser.add_argument("streams", nargs="*", metavar="STREAM", help=f"of {', '.join(STREAMS)}; default: all")
    for option, default in Size._field_defaults.items():
        parser.add_argument(f"--{option.replace('_', '-')}", type=int, default=default)
    asked = parser.parse_args()
    if asked.what == "steady":
        size = Size(*(getattr(asked, option) for option in Size._fields))
        for name in asked.streams or STREAMS:
            print(json.dumps(steady(name, size)), flush=True)
    elif asked.what == "moving":
        for line in moving(asked.runs):
            print(json.dumps(line), flush=True)
    else:
        print(json.dumps(compare_with_evidently()))


if __name__ == "__main__":
    main()
