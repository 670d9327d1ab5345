"""Evidently itself: what it calls drifted, and how long it takes. A process of its own, because its pins are others.

    uv run --isolated --no-project --with evidently==0.7.21 --with "pandas<3" --with pyarrow python evidently_peer.py FOLDER

FOLDER holds reference.parquet and window-*.parquet; the answer is JSON on the last line: for each window which columns are
drifted, and the CPU seconds of all reports.
"""

import json
import sys
import time
from pathlib import Path

import pandas  # type: ignore[import-untyped]  # noqa: ICN001  # as it calls itself
from evidently import DataDefinition, Dataset, Report  # type: ignore[import-not-found]  # only in its own environment
from evidently.presets import DataDriftPreset  # type: ignore[import-not-found]  # the same


def main(folder: Path) -> None:
    """Report on every window."""
    frame = pandas.read_parquet(folder / "reference.parquet")
    numbers = [name for name in frame if frame[name].dtype.kind == "f"]
    words = [name for name in frame if name not in numbers]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=words)
    reference = Dataset.from_pandas(frame, data_definition=definition)
    drifted, seconds, values = {}, 0.0, 0
    for path in sorted(folder.glob("window-*.parquet")):
        window = Dataset.from_pandas(pandas.read_parquet(path), data_definition=definition)
        start = time.process_time()
        found = Report([DataDriftPreset()]).run(window, reference).dict()
        seconds += time.process_time() - start
        values += frame.size + window.as_dataframe().size
        drifted[path.stem] = sorted(
            each["config"]["column"] for each in found["metrics"] if "column" in each["config"] and _over(each)
        )
    print(json.dumps({"drifted": drifted, "cpu_seconds": seconds, "values": values}))


def _over(metric: dict) -> bool:  # type: ignore[type-arg]  # JSON
    config = metric["config"]
    value, threshold = float(metric["value"]), float(config["threshold"])
    return value < threshold if "p_value" in str(config.get("method")) else value >= threshold


main(Path(sys.argv[1]))
