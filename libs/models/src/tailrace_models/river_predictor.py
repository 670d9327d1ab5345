"""A river model as serving holds it: restored, checked against the present spec, and only answering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tailrace_contracts.spec import ClassLabel, Feature, Label, ModelSpec
from tailrace_models.answers import Answer
from tailrace_models.encoding import Row
from tailrace_models.errors import ArtefactIncompatible
from tailrace_models.explaining import Explainer, Reference
from tailrace_models.river_explaining import RiverExplainable
from tailrace_models.river_model import ASKED, RiverModel


class RiverPredictor:
    """A restored model that only answers: what serving holds."""

    def __init__(self, model: RiverModel) -> None:
        self._model = model

    @classmethod
    def from_envelope(cls, data: bytes, signing_key: bytes, spec: ModelSpec) -> RiverPredictor:
        """The model in signed bytes. Raises as `RiverModel.from_envelope`, and where the spec has other features."""
        model = RiverModel.from_envelope(data, signing_key).model
        if _questions(model.features) != _questions(spec.features) or _classes(model.label) != _classes(spec.label):
            raise ArtefactIncompatible(
                f"river artefact was trained for other features or classes than model {spec.model!r} now has; "
                "the training service publishes a new one after the next examples"
            )
        model.label = spec.label
        return cls(model)

    def predict(self, rows: Sequence[Row]) -> list[Answer]:
        """One answer for each row of features, in order."""
        return [self._model.predict(row) for row in rows]

    def explainer(self, reference: Reference | None = None) -> Explainer | None:
        """What explains its answers, against these rows or those that it has learned from; None without any."""
        against = reference or self._model.reference()
        return Explainer(RiverExplainable(self._model), against) if against.rows else None


def _questions(features: Sequence[Feature]) -> list[dict[str, Any]]:
    return [each.model_dump(include=ASKED) for each in features]


def _classes(label: Label) -> tuple[int, int] | None:
    return label.classes if isinstance(label, ClassLabel) else None
