"""Artefacts out of the object store: fetched by claim check, verified, loaded and warmed in a thread.

The object store verifies the sha256, `tailrace_models` the signature and the fit to the spec, and one warm-up row that
the model answers at all. Only then does anybody hear of it. The warm-up also says how long one row takes, and several at
once, and with it how the model is called (`running`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Generator, Mapping, Sequence
from time import perf_counter
from typing import Any, Protocol

import msgspec

from tailrace_contracts.events import ClaimCheck, FeatureValue
from tailrace_contracts.spec import ClassLabel, ModelSpec
from tailrace_models import Answer, ArtefactError, Explained, Explainer, Predictor, Reference, load
from tailrace_models.explaining import thinned
from tailrace_runtime.errors import ArtefactCorrupt, ObjectMissing, RetryLater
from tailrace_serving.domain.arms import ArmFailed
from tailrace_serving.domain.features import FeatureRules
from tailrace_serving.ports import ArtefactUnusable
from tailrace_serving.running import SLICE_ROWS, InLine, Lane, Together


class Objects(Protocol):
    """The part of the runtime's object store that serving needs."""

    async def get_artefact(self, claim: ClaimCheck) -> bytes:
        """The bytes, verified against the claim's sha256."""
        ...


class _Reference(msgspec.Struct):
    """Of a version's reference (`tailrace_statistics`), what is explained against."""

    sample: list[dict[str, FeatureValue]] = []


_REFERENCE = msgspec.json.Decoder(_Reference)
_TRIES = 3
_PAYS = 0.5
"""Of the time for rows one by one: what takes less for all at once is asked for several together."""


class StoredArtefacts:
    """Loads artefacts of the project's own formats."""

    def __init__(self, objects: Objects, signing_key: bytes, in_line_seconds: float = 0.001) -> None:
        self._objects = objects
        self._in_line_seconds = in_line_seconds
        self._signing_key = signing_key

    async def load(self, claim: ClaimCheck, spec: ModelSpec) -> InLine | Together | Lane:
        """The model behind a claim check. Raises ArtefactUnusable."""
        try:
            data = await self._objects.get_artefact(claim)
        except (ArtefactCorrupt, ObjectMissing, RetryLater) as error:
            raise ArtefactUnusable(str(error)) from error
        predictor, one, many = await asyncio.to_thread(self._opened, claim.media_type, data, spec)
        if one > self._in_line_seconds:
            return Lane(predictor)
        return Together(predictor) if many < _PAYS * SLICE_ROWS * one else InLine(predictor)

    async def reference(self, claim: ClaimCheck) -> Reference:
        """The row sample of a version's reference. Raises ArtefactUnusable."""
        try:
            data = await self._objects.get_artefact(claim)
            rows = (await asyncio.to_thread(_REFERENCE.decode, data)).sample
        except (ArtefactCorrupt, ObjectMissing, RetryLater, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ArtefactUnusable(str(error)) from error
        return thinned(Reference(rows, claim.sha256))

    def _opened(self, media_type: str, data: bytes, spec: ModelSpec) -> tuple[GuardedPredictor, float, float]:
        """The model, and the seconds that it takes for one row and for `SLICE_ROWS`."""
        try:
            predictor = GuardedPredictor(load(media_type, data, signing_key=self._signing_key, spec=spec), spec)
            row = FeatureRules(spec).example()
            one = _seconds_for(predictor, [row])
            many = _seconds_for(predictor, [row] * SLICE_ROWS) if one <= self._in_line_seconds else math.inf
        except ArtefactError as error:
            raise ArtefactUnusable(str(error)) from error
        except ArmFailed as error:
            raise ArtefactUnusable(
                f"the artefact loads, but fails on a row within the spec's limits: {error}"
            ) from error
        return predictor, one, many


def _seconds_for(predictor: GuardedPredictor, rows: Sequence[Mapping[str, FeatureValue]]) -> float:
    """The fastest of a few calls; the first is there to warm the model. Raises ArmFailed."""
    predictor.predict(rows)
    taken = []
    for _ in range(_TRIES):
        began = perf_counter()
        predictor.predict(rows)
        taken.append(perf_counter() - began)
    return min(taken)


class GuardedPredictor:
    """A model of whatever library, whose every failure is an ArmFailed and whose answers are answers."""

    def __init__(self, predictor: Predictor, spec: ModelSpec) -> None:
        self._predictor = predictor
        self._label = spec.label

    def predict(self, rows: Sequence[Mapping[str, FeatureValue]]) -> list[Answer]:
        """One answer for each row. Raises ArmFailed."""
        try:
            answers = self._predictor.predict(rows)
        except Exception as error:  # the libraries' errors share no base; all mean that this model cannot answer
            raise ArmFailed(f"{type(error).__name__}: {_first_line(error)}") from error
        if len(answers) != len(rows):
            raise ArmFailed(f"{len(answers)} answers for {len(rows)} rows")
        for answer in answers:
            if isinstance(self._label, ClassLabel):
                if answer.prediction not in self._label.classes or not _is_probability(answer.probability):
                    raise ArmFailed(f"the answer {_plain(answer)}, expected a class of the label and a probability")
            elif answer.probability is not None or not math.isfinite(answer.prediction):
                raise ArmFailed(f"the answer {_plain(answer)}, expected a finite number without a probability")
        return answers

    def explainer(self, reference: Reference | None) -> GuardedExplainer | None:
        """What explains its answers; None where there are no rows to explain against. Raises ArmFailed."""
        try:
            found = self._predictor.explainer(reference)
        except Exception as error:
            raise ArmFailed(f"{type(error).__name__}: {_first_line(error)}") from error
        return None if found is None else GuardedExplainer(found)


class GuardedExplainer:
    """An explainer of whatever model, whose every failure is an ArmFailed and whose numbers are numbers."""

    def __init__(self, explainer: Explainer) -> None:
        self._explainer = explainer

    def mixed_rows(self, permutations: int) -> int:
        """How many rows the model is asked for one explanation."""
        return self._explainer.mixed_rows(permutations)

    def steps(self, row: Mapping[str, FeatureValue], permutations: int, seed: int) -> Generator[None, None, Explained]:
        """Explain a row. Raises ArmFailed."""
        try:
            found = yield from self._explainer.steps(row, permutations, seed)
        except Exception as error:
            raise ArmFailed(f"{type(error).__name__}: {_first_line(error)}") from error
        if not all(map(math.isfinite, (found.base_value, found.output, *found.contributions.values()))):
            raise ArmFailed("its explanation is not finite")
        return found


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _plain(answer: Any) -> str:
    if answer.probability is None:
        return str(answer.prediction)
    probability = "NaN" if math.isnan(answer.probability) else f"{answer.probability:g}"
    return f"{answer.prediction} with probability {probability}"


def _is_probability(value: float | None) -> bool:
    return value is not None and 0.0 <= value <= 1.0
