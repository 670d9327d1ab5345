"""What the demo is compared with: version 1 left alone, and river without Tailrace. Both are computed in the run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tailrace_cli.demo.datasets import Row
from tailrace_contracts.events import FeatureValue, VersionChanged
from tailrace_contracts.spec import ModelSpec, NumericalFeature
from tailrace_models import load
from tailrace_runtime.objects import ObjectStore


def within_limits(spec: ModelSpec, row: Row) -> dict[str, FeatureValue]:
    """A row's features with readings beyond their limits made missing, as the spec of the demo asks for."""
    limits = {feature.name: feature.limits for feature in spec.features if isinstance(feature, NumericalFeature)}
    return {
        name: value if isinstance(value, float) and limits[name].min <= value <= limits[name].max else None
        for name, value in row.features.items()
    }


def first_version_accuracy(
    version: VersionChanged, spec: ModelSpec, rows: Sequence[Row], objects: str, signing_key: bytes
) -> float | None:
    """What version 1 would have scored on the played days, had nobody replaced it."""
    if not rows:
        return None
    artefact = asyncio.run(ObjectStore.from_url(objects).get_artefact(version.artefact))
    predictor = load(version.artefact.media_type, artefact, signing_key=signing_key, spec=spec)
    answers = predictor.predict([within_limits(spec, row) for row in rows])
    return sum(answer.prediction == row.label for answer, row in zip(answers, rows, strict=True)) / len(rows)


def river_accuracy(spec: ModelSpec, history: Sequence[Row], rows: Sequence[Row]) -> float | None:
    """A plain river pass (scaler and logistic regression), test then train; only the played days count."""
    from river import linear_model, preprocessing

    if not rows:
        return None
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    right = 0
    for row in (*history, *rows):
        features = {name: value for name, value in within_limits(spec, row).items() if value is not None}
        if row.number >= rows[0].number:
            right += int(model.predict_one(features) or 0) == row.label
        model.learn_one(features, row.label)
    return right / len(rows)
