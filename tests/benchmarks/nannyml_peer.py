"""The published package nannyml on the chunks of `tests.benchmarks.estimation`, in an environment of its own.

    python nannyml_peer.py classification|regression rows.parquet answer.json

Rows have `chunk`, `phase` (reference or analysis), and the columns of the task. Its defaults are used throughout.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import nannyml  # type: ignore[import-not-found]  # not of this project: the peer's own environment has it
import pandas as pd  # type: ignore[import-untyped]  # not of this project: it comes with nannyml


def _chunks(rows: pd.DataFrame) -> int:
    return int((rows["chunk"] == rows["chunk"].iloc[0]).sum())


def _fitted(estimator: Any, rows: pd.DataFrame, figures: list[str]) -> dict[str, Any]:
    reference, analysis = (rows[rows["phase"] == phase].drop(columns="phase") for phase in ("reference", "analysis"))
    began = time.perf_counter(), time.process_time()
    estimator.fit(reference)
    found = estimator.estimate(analysis.drop(columns="label")).to_df()
    spent = time.perf_counter() - began[0], time.process_time() - began[1]
    found = found[found[("chunk", "period")] == "analysis"]
    bounds = {
        name: {
            "value": found[(name, "value")].tolist(),
            "lower": found[(name, "lower_confidence_boundary")].tolist(),
            "upper": found[(name, "upper_confidence_boundary")].tolist(),
        }
        for name in figures
    }
    return {"figures": bounds, "seconds": spent[0], "cpu_seconds": spent[1], "version": nannyml.__version__}


def classification(rows: pd.DataFrame) -> dict[str, Any]:
    """Confidence-based performance estimation."""
    figures = ["accuracy", "roc_auc"]
    estimator = nannyml.CBPE(
        y_pred_proba="probability",
        y_pred="prediction",
        y_true="label",
        metrics=figures,
        problem_type="classification_binary",
        chunk_size=_chunks(rows),
    )
    return _fitted(estimator, rows, figures)


def regression(rows: pd.DataFrame) -> dict[str, Any]:
    """Direct loss estimation."""
    figures = ["mae", "rmse"]
    features = [name for name in rows.columns if name.startswith("x")]
    estimator = nannyml.DLE(
        feature_column_names=features,
        y_pred="prediction",
        y_true="label",
        metrics=figures,
        chunk_size=_chunks(rows),
    )
    return _fitted(estimator, rows, figures)


if __name__ == "__main__":
    task, source, answer = sys.argv[1:]
    given = pd.read_parquet(source)
    result = {"classification": classification, "regression": regression}[task](given)
    Path(answer).write_text(json.dumps(result), encoding="utf-8")
