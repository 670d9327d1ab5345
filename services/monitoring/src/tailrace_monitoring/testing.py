"""Stand-ins for monitoring's ports, and a small world to watch.

`MemoryWatches` passes the suite that `PostgresWatches` passes. The world is a model `tide`, its versions, and labelled
examples of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tailrace_contracts.events import (
    Arm,
    ArmOutput,
    CanaryArm,
    ClaimCheck,
    ColumnSummary,
    DeploymentChanged,
    Event,
    ExampleLabelled,
    Lineage,
    Slice,
    Stage,
    VersionChanged,
    WindowSpan,
    WindowSummarised,
    decode,
)
from tailrace_contracts.ranges import LogRanges, Trigger
from tailrace_contracts.spec import ModelSpec, parse_spec
from tailrace_monitoring.domain.cohorts import Cohort, CohortKey, window_of
from tailrace_monitoring.domain.estimation import PAST_COHORTS
from tailrace_monitoring.domain.knowledge import Knowledge
from tailrace_monitoring.domain.lessons import KEPT, Foretell, Lesson
from tailrace_monitoring.domain.state import Changes, ModelState, Tools
from tailrace_monitoring.domain.trail import Step, Trail
from tailrace_monitoring.domain.watched import ModelWatch
from tailrace_monitoring.domain.yardsticks import Answers, Basis, Labels
from tailrace_monitoring.handlers import Watchers
from tailrace_monitoring.ports import ReferenceUnusable
from tailrace_runtime.database import Database
from tailrace_runtime.testing import FixedClock
from tailrace_statistics.calibration import Values
from tailrace_statistics.columns import NumericalFold

E = TypeVar("E", bound=Event)


class FixedGazette:
    """Knows what it was told."""

    def __init__(self, known: Mapping[str, Knowledge]) -> None:
        self.known = dict(known)

    async def model(self, name: str) -> Knowledge | None:
        """The model as it was told."""
        return self.known.get(name)

    def names(self) -> Iterable[str]:
        """The models that it was told."""
        return list(self.known)


class FixedReferences:
    """References by digest; others are unusable."""

    def __init__(
        self,
        known: Mapping[str, Mapping[str, ColumnSummary]] | None = None,
        rows: Mapping[str, Values] | None = None,
    ) -> None:
        self.known = dict(known or {})
        self.rows = rows or {}
        self.answers: tuple[Mapping[str, ColumnSummary], Mapping[str, Values]] | None = None
        self.labels: Labels | None = None

    async def basis(self, claim: ClaimCheck, version: int) -> Basis:
        """The columns under this digest, and the rows that it was given, whatever the digest."""
        if claim.sha256 not in self.known:
            raise ReferenceUnusable(f"nothing under {claim.key}")
        answers = Answers(version, *self.answers) if self.answers else None
        return Basis(claim.sha256, self.known[claim.sha256], self.rows, answers, self.labels)


class SilentMeter:
    """Reports to nobody."""

    def report(self, watch: ModelWatch, changes: Changes) -> None:
        """Nothing."""


class MemorySitting:
    """One model's watch for a while."""

    def __init__(self, watch: ModelWatch, stored: dict[CohortKey, str], lessons: Iterable[Lesson]) -> None:
        self.watch = watch
        self._stored = stored
        self._lessons = sorted(lessons, key=lambda each: -each.number)

    async def lessons(self, version: int) -> list[Lesson]:
        """Labelled answers of a version, newest first."""
        return [each for each in self._lessons if each.version == version][:KEPT]

    async def cohorts(self, keys: Iterable[CohortKey]) -> list[Cohort]:
        """Stored cohorts, those of the keys that there are."""
        return [Cohort.model_validate_json(self._stored[key]) for key in keys if key in self._stored]

    async def labelled(self, version: int, before: datetime) -> list[Cohort]:
        """Stored cohorts of a version with labels that began before a moment, newest first."""
        keys = [key for key in sorted(self._stored, reverse=True) if key.version == version and key.start < before]
        found = [Cohort.model_validate_json(self._stored[key]) for key in keys]
        return [cohort for cohort in found if cohort.examples][:PAST_COHORTS]


class MemoryWatches:
    """Keeps every watch as the text that a database would hold, and reads it anew for each sitting.

    `published` is what the outbox would hold, in order.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._states: dict[str, str] = {}
        self._steps: dict[str, list[Step]] = {}
        self._cohorts: dict[str, dict[CohortKey, str]] = {}
        self._lessons: dict[str, dict[tuple[int, str], Lesson]] = {}
        self.published: list[Event] = []

    @asynccontextmanager
    async def sitting(self, model: str, trail_length: int) -> AsyncIterator[MemorySitting]:
        """The model's watch; kept when the block ends well."""
        stored = self._cohorts.setdefault(model, {})
        loaded = [Cohort.model_validate_json(text) for text in stored.values()]
        watch = ModelWatch(
            model,
            ModelState.model_validate_json(self._states.get(model, "{}")),
            Trail(trail_length, self._steps.get(model, [])[-trail_length:]),
            [cohort for cohort in loaded if not cohort.closed],
            self._tools,
        )
        lessons = self._lessons.setdefault(model, {})
        yield MemorySitting(watch, stored, lessons.values())
        lessons.update({(each.version, each.prediction_id): each for each in watch.changes.lessons})
        self._states[model] = watch.state.model_dump_json()
        self._steps.setdefault(model, []).extend(watch.changes.steps)
        stored.update((key, watch.cohorts[key].model_dump_json()) for key in watch.changes.cohorts)
        self.published.extend(watch.changes.events)

    def state(self, model: str) -> ModelState:
        """The state as it is stored."""
        return ModelState.model_validate_json(self._states.get(model, "{}"))


class Stored(NamedTuple):
    """A store of watches; with the database that it lies in, if it lies in one."""

    store: Any
    database: Database | None = None

    async def events(self, kind: type[E]) -> list[E]:
        """What stands in the outbox, of this kind, in order."""
        found: Iterable[Event]
        if self.database is None:
            found = self.store.published
        else:
            rows = await self.database.pool.fetch("select value from outbox order by id")
            found = [decode(row["value"]) for row in rows]
        return [event for event in found if isinstance(event, kind)]


class WatchedWorld:
    """Handlers on one store, a clock that stands still, references, and what was published."""

    def __init__(self, stored: Stored, foretell: Foretell | None = None) -> None:
        self.clock = FixedClock()
        self.store = stored.store
        self.database = stored.database
        self.events = stored.events
        self.references = FixedReferences()
        self.watchers = Watchers(
            FixedGazette({}), self.store, self.references, SilentMeter(), self.clock, foretell=foretell
        )


# ---------------------------------------------------------------- a small world

MODEL = "tide"
NOW = datetime(2025, 6, 1, tzinfo=UTC)
FIRST_DAY = datetime(2020, 1, 1, tzinfo=UTC)


def tide_spec(**changes: Any) -> ModelSpec:
    """The spec of `tide`, with other parts where given."""
    document: dict[str, Any] = {
        "model": MODEL,
        "owner": "harbour",
        "features": [
            {"name": "level", "type": "numerical", "limits": {"min": -5, "max": 5}, "on_out_of_limits": "flag"},
            {"name": "quay", "type": "categorical", "categories": ["north", "south"]},
        ],
        "protected": ["quay"],
        "label": {"name": "flood"},
        "learners": {"batch": {"min_examples": 100, "max_examples": 200}},
        "monitors": {"window_days": 30, "allowed_lateness_days": 5},
        "retraining": {"settle_examples": 40, "cooldown_examples": 100},
        "rollout": {"shadow_min_examples": 20, "canary_min_examples": 20, "max_examples": 2_000},
    }
    return parse_spec({**document, **changes})


def claim(digit: str = "0") -> ClaimCheck:
    """The pointer to an artefact that nobody reads."""
    return ClaimCheck(key=f"sha256/{digit * 64}", sha256=digit * 64, size_bytes=1, media_type="text/plain")


def version(
    number: int, stage: Stage, *, continual: bool = False, reference: ClaimCheck | None = None
) -> VersionChanged:
    """A version of `tide`."""
    return VersionChanged(
        model=MODEL,
        version=number,
        stage=stage,
        run_id=f"run-of-{number}",
        learner="river" if continual else "torch",
        continual=continual,
        artefact=claim(),
        reference=reference,
        lineage=Lineage(trained_on=LogRanges(), examples=100, spec_revision=1, code_version="1"),
        time=NOW,
    )


def deployment(
    sequence: int, champion: int | None, canary: int | None = None, shadows: tuple[int, ...] = ()
) -> DeploymentChanged:
    """Who answers `tide`."""
    return DeploymentChanged(
        model=MODEL,
        sequence=sequence,
        spec_revision=1,
        champion=champion,
        canary=CanaryArm(version=canary, percent=20) if canary else None,
        shadows=shadows,
        reason="for a test",
        time=NOW,
    )


def knowledge(
    spec: ModelSpec,
    deployed: DeploymentChanged | None = None,
    versions: Iterable[VersionChanged] = (),
    over: Iterable[str] = (),
) -> Knowledge:
    """What is known of `tide`."""
    return Knowledge(spec, 1, deployed, {each.version: each for each in versions}, frozenset(over))


def answered(arm: Arm, prediction: float, number: int | None = None) -> ArmOutput:
    """What an arm said."""
    return ArmOutput(arm=arm, prediction=prediction, version=number)


def labelled(
    number: int, label: float, served: ArmOutput | None = None, *shadows: ArmOutput, **changes: Any
) -> ExampleLabelled:
    """The labelled example of day `number`."""
    fields: dict[str, Any] = {
        "prediction_id": f"p{number}",
        "model": MODEL,
        "time": FIRST_DAY + timedelta(days=number),
        "label_time": FIRST_DAY + timedelta(days=number + 1),
        "features": {"level": 0.5, "quay": "north" if number % 2 else "south"},
        "label": label,
        "served": served,
        "shadows": shadows,
        "trigger": Trigger(topic="labels", partition=0, offset=number),
        "derived_from": LogRanges(),
    }
    return ExampleLabelled(**{**fields, **changes})


# ---------------------------------------------------------------- months of answers with probabilities

MONTH = timedelta(days=30)
ANSWERS = 200


def month_of(number: int) -> datetime:
    """The start of a month's cohort and window; they are aligned to 1970."""
    return window_of(FIRST_DAY + MONTH, 30).start + number * MONTH


def month(number: int, *, sure: float = 2.0, worth: float = 1.0) -> list[ExampleLabelled]:
    """A month's examples of version 1. `sure`: how far from one half it answers; `worth`: whether it is right."""
    chance = np.random.default_rng(number)
    examples = []
    for n in range(ANSWERS):
        inputs = sure * chance.normal()
        probability = float(1 / (1 + np.exp(-inputs)))
        label = int(chance.random() < 1 / (1 + np.exp(-worth * inputs)))
        output = ArmOutput(arm="champion", version=1, prediction=int(probability >= 0.5), probability=probability)
        moment = month_of(number) + timedelta(days=1 + 25 * n / ANSWERS)
        offset = Trigger(topic="labels", partition=0, offset=number * ANSWERS + n)
        changes = {"prediction_id": f"m{number}-{n}", "time": moment, "label_time": moment, "trigger": offset}
        examples.append(labelled(n, label, output, **changes))
    return examples


def window_of_answers(number: int, examples: Sequence[ExampleLabelled]) -> WindowSummarised:
    """The closed window of a month in which these answers were given, as ingestion summarises it."""
    columns: dict[str, ColumnSummary] = {}
    for name, selected in (("probability_if_negative", 0), ("probability_if_positive", 1)):
        fold = NumericalFold()
        outputs = [each.served for each in examples if each.served is not None]
        fold.fold([each.probability or 0.0 for each in outputs if each.prediction == selected])
        columns[name] = fold.summary()
    return WindowSummarised(
        model=MODEL,
        spec_revision=1,
        window=WindowSpan(start=month_of(number), end=month_of(number + 1)),
        events=len(examples),
        columns={},
        slices=(Slice(arm="champion", version=1, events=len(examples), columns=columns),),
        closed=True,
        derived_from=LogRanges(),
    )
