"""Fakes of the ports, and the facts that a registry would publish, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from tailrace_contracts.events import (
    CanaryArm,
    ClaimCheck,
    DeploymentChanged,
    Event,
    FeatureValue,
    Lineage,
    SpecApplied,
    VersionChanged,
)
from tailrace_contracts.ranges import LogRanges
from tailrace_contracts.spec import ModelSpec, parse_spec
from tailrace_models import Reference
from tailrace_serving.domain.arms import ArmFailed, Predictor, ReferenceOf
from tailrace_serving.domain.buffer import Captured
from tailrace_serving.domain.deployment import Facts
from tailrace_serving.domain.explanation import Explanation, ToExplain
from tailrace_serving.domain.refusal import Refused
from tailrace_serving.ports import ArtefactUnusable, NeverPublished, NotPublished

THEN = datetime(2026, 1, 31, 12, tzinfo=UTC)
FAKE = "application/vnd.tailrace.fake"


def rain_spec(**changes: object) -> ModelSpec:
    """A small spec with one feature for each policy that serving applies."""
    document: dict[str, object] = {
        "model": "rain",
        "owner": "weather",
        "label": {"name": "rain"},
        "features": [
            {"type": "numerical", "name": "humidity", "limits": {"min": 0, "max": 100}},
            {"type": "numerical", "name": "pressure", "limits": {"min": 800, "max": 1100}, "on_out_of_limits": "clip"},
            {
                "type": "numerical",
                "name": "wind",
                "limits": {"min": 0},
                "on_out_of_limits": "null",
                "on_missing": "flag",
            },
            {"name": "sky", "type": "categorical", "categories": ["clear", "clouded"], "on_unseen": "reject"},
        ],
    }
    return parse_spec({**document, **changes})


RAIN: dict[str, FeatureValue] = {"humidity": 40.0, "pressure": 1000.0, "wind": 3.0, "sky": "clear"}
"""A row that the spec takes as it is."""


class FakeAnswer(NamedTuple):
    """An arm's answer."""

    prediction: float
    probability: float | None


class FakePredictor:
    """Always answers the same, a class or (`number`) a number, and remembers what it was asked."""

    def __init__(self, probability: float = 0.75, *, number: float | None = None, fails: bool = False) -> None:
        self.asked: list[Mapping[str, FeatureValue]] = []
        self.explained: list[ToExplain] = []
        self._probability = probability
        self._number = number
        self._fails = fails

    async def predict(self, rows: Sequence[Mapping[str, FeatureValue]], *, alone: bool = False) -> list[FakeAnswer]:  # noqa: ARG002
        """The same answer for every row. Raises ArmFailed when told to."""
        if self._fails:
            raise ArmFailed("out of order")
        self.asked.extend(rows)
        answer = FakeAnswer(int(self._probability > 0.5), self._probability)
        return [answer if self._number is None else FakeAnswer(self._number, None) for _ in rows]

    async def explain(self, asked: ToExplain, reference: ReferenceOf) -> Explanation:
        """All of the output as the contribution of the first feature. Raises ArmFailed when told to, or Refused."""
        if self._fails:
            raise ArmFailed("out of order")
        if asked.permutations > asked.most_rows:
            raise Refused("too-large", "the fake is asked for too many permutations, expected fewer")
        found = await reference()
        if found is None:
            raise Refused("unexplainable", "the fake has no reference rows, expected some")
        self.explained.append(asked)
        output = self._probability if self._number is None else self._number
        scale = "probability" if self._number is None else "value"
        contributions = dict.fromkeys(asked.row, 0.0) | {next(iter(asked.row)): output}
        errors = dict.fromkeys(asked.row, 0.0)
        return Explanation(
            "sampling-shapley",
            scale,
            0.0,
            output,
            contributions,
            errors,
            asked.permutations,
            asked.seed,
            len(found.rows),
            found.sha256,
        )


class FakeArtefacts:
    """Artefacts by digest; what it does not hold is unusable."""

    def __init__(self) -> None:
        self.predictors: dict[str, Predictor] = {}
        self.references: dict[str, Sequence[Mapping[str, FeatureValue]]] = {}
        self.loads: list[str] = []

    async def load(self, claim: ClaimCheck, spec: ModelSpec) -> Predictor:
        """The predictor under the claim's digest. Raises ArtefactUnusable."""
        self.loads.append(claim.sha256)
        if claim.sha256 not in self.predictors:
            raise ArtefactUnusable(f"artefact {claim.key} of model {spec.model!r} is missing")
        return self.predictors[claim.sha256]

    async def reference(self, claim: ClaimCheck) -> Reference:
        """The rows under the claim's digest. Raises ArtefactUnusable."""
        if claim.sha256 not in self.references:
            raise ArtefactUnusable(f"reference {claim.key} is missing")
        return Reference(self.references[claim.sha256], claim.sha256)


class FakeEventLog:
    """Keeps what is published; can be away, or refuse a key for good."""

    def __init__(self) -> None:
        self.events: list[Captured] = []
        self.away = False
        self.attempts: list[int] = []
        """How many events were tried at once."""
        self.refuses: bytes | None = None

    async def publish(self, events: Sequence[Captured]) -> None:
        """Keep the events. Raises NotPublished while away, NeverPublished for the refused key."""
        self.attempts.append(len(events))
        if self.away:
            raise NotPublished("the broker is away")
        if any(event.key == self.refuses for event in events):
            raise NeverPublished("too large")
        self.events.extend(events)


class FakeMeter:
    """Adds up counters by name and labels' values."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, ...], float] = {}
        self.gauges: dict[str, float] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        key = (name, *labels.values())
        self.counts[key] = self.counts.get(key, 0) + amount

    def gauge(self, name: str, value: float, **_: str) -> None:
        """Set a gauge."""
        self.gauges[name] = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add up what is measured."""
        self.count(name, value, **labels)


class FixedClock:
    """Always the same moment."""

    def now(self) -> datetime:
        """That moment."""
        return THEN


def learn(facts: Facts, event: Event) -> bool:
    """Take a fact in. Whether what is to be served may have changed."""
    if isinstance(event, SpecApplied):
        return facts.learn_spec(event)
    if isinstance(event, VersionChanged):
        return facts.learn_version(event)
    assert isinstance(event, DeploymentChanged)  # noqa: S101  # the third of three
    return facts.learn_deployment(event)


def digest(name: str) -> str:
    """A made-up sha256 that can be told from others."""
    return name.encode().hex().rjust(64, "0")


def claim_check(name: str) -> ClaimCheck:
    """A claim check on a made-up artefact."""
    return ClaimCheck(key=f"sha256/{digest(name)}", sha256=digest(name), size_bytes=1, media_type=FAKE)


def applied(spec: ModelSpec, revision: int = 1) -> SpecApplied:
    """A spec taking effect."""
    return SpecApplied(model=spec.model, spec_revision=revision, spec=spec, applied_by="test", time=THEN)


def versioned(
    version: int,
    artefact: str | ClaimCheck,
    *,
    model: str = "rain",
    revision: int | None = None,
    reference: str | None = None,
) -> VersionChanged:
    """A version of a model; with a revision it is a continual one."""
    return VersionChanged(
        model=model,
        version=version,
        stage="registered",
        run_id=f"run-{version}",
        learner="torch" if revision is None else "river",
        continual=revision is not None,
        revision=revision or 0,
        artefact=claim_check(artefact) if isinstance(artefact, str) else artefact,
        reference=claim_check(reference) if reference else None,
        lineage=Lineage(trained_on=LogRanges(), examples=1, spec_revision=1, code_version="test"),
        time=THEN,
    )


def deployed(
    champion: int | None,
    *,
    canary: tuple[int, int] | None = None,
    shadows: tuple[int, ...] = (),
    model: str = "rain",
    sequence: int = 1,
) -> DeploymentChanged:
    """A deployment; the canary is version and percent."""
    return DeploymentChanged(
        model=model,
        sequence=sequence,
        spec_revision=1,
        champion=champion,
        canary=CanaryArm(version=canary[0], percent=canary[1]) if canary else None,
        shadows=shadows,
        reason="test",
        time=THEN,
    )
