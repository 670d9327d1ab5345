"""Who answers: the arms of one model as one immutable snapshot.

A request looks its model's `Arms` up once and keeps them to the end, so whatever is swapped meanwhile, its answer, its
shadows and its event are of one deployment. The canary's share is decided by a hash of model and entity (or prediction
id), so the same entity always meets the same arm, in every process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple, Protocol

from tailrace_contracts.events import Arm, ClaimCheck, FeatureValue
from tailrace_contracts.spec import ModelSpec
from tailrace_serving.domain.explanation import Explanation, ToExplain
from tailrace_serving.domain.features import FeatureRules
from tailrace_serving.domain.refusal import Refused, brief
from tailrace_serving.domain.tally import Tally


class ArmAnswer(Protocol):
    """The class that was predicted, and the probability of the positive one; or the number of a regression."""

    @property
    def prediction(self) -> float:
        """One of the label's classes, or a number."""
        ...

    @property
    def probability(self) -> float | None:
        """Of the positive class; a regression has none."""
        ...


class Reference(Protocol):
    """Rows to explain against, and their digest."""

    @property
    def rows(self) -> Sequence[Mapping[str, FeatureValue]]:
        """Rows of features."""
        ...

    @property
    def sha256(self) -> str:
        """Of the artefact that they are out of."""
        ...


ReferenceOf = Callable[[], Awaitable[Reference | None]]
"""Fetches the rows that a version is explained against; None where it has none beside it. Raises ArmFailed."""


class Predictor(Protocol):
    """A loaded model."""

    async def predict(self, rows: Sequence[Mapping[str, FeatureValue]], *, alone: bool = False) -> Sequence[ArmAnswer]:
        """One answer for each row; `alone`, not together with what else is asked, so that it can be timed. Raises ArmFailed."""
        ...

    async def explain(self, asked: ToExplain, reference: ReferenceOf) -> Explanation:
        """Why it answers this row so. Raises ArmFailed, or Refused: nothing to explain against, or at too high a cost."""
        ...


class ArmFailed(Exception):  # noqa: N818 — a fact, as in the runtime's errors
    """A loaded model raised, or answered what is no answer."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version, or a continual version's revision, ready to answer."""

    version: int
    revision: int | None
    learner: str
    sha256: str
    predictor: Predictor
    reference: ClaimCheck | None = None

    @property
    def label(self) -> str:
        """`7`, or `7.12` for a revision of a continual version."""
        return str(self.version) if self.revision is None else f"{self.version}.{self.revision}"


class Member(NamedTuple):
    """A loaded version in its arm."""

    arm: Arm
    loaded: Loaded


@dataclass(frozen=True, slots=True)
class Arms:
    """One model's deployment as this process serves it now."""

    model: str
    spec: ModelSpec
    rules: FeatureRules
    champion: Loaded | None = None
    canary: Loaded | None = None
    canary_percent: int = 0
    shadows: tuple[Loaded, ...] = ()
    deployed_champion: int | None = None
    problems: Mapping[int, str] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally, compare=False)
    """What became of the model's calls; the arms after these go on counting in it."""

    @property
    def ready(self) -> bool:
        """Whether the champion that the registry deployed answers, or at least an earlier one does."""
        return self.champion is not None

    def members(self) -> Iterator[Member]:
        """Every arm that answers: champion, canary, shadows."""
        if self.champion:
            yield Member("champion", self.champion)
        if self.canary:
            yield Member("canary", self.canary)
        for loaded in self.shadows:
            yield Member("shadow", loaded)

    def choose(self, key: str) -> Member:
        """The arm that serves this entity or prediction id. Raises Refused when there is no champion."""
        if self.champion is None:
            raise Refused("unavailable", self._without_champion())
        if self.canary and bucket(self.model, key) < self.canary_percent:
            return Member("canary", self.canary)
        return Member("champion", self.champion)

    def named(self, wanted: str) -> Member:
        """The arm that holds a version, such as `7` or `7.12`. Raises Refused when none does."""
        for member in self.members():
            if wanted in {str(member.loaded.version), member.loaded.label}:
                return member
        deployed = ", ".join(f"{loaded.label} ({arm})" for arm, loaded in self.members()) or "none"
        raise Refused(
            "unknown", f"version {brief(wanted)} of model {self.model!r} is not served; versions served now: {deployed}"
        )

    def others(self, served: Loaded) -> list[Member]:
        """The arms that answer beside the served one, off the response path."""
        return [member for member in self.members() if member.loaded is not served]

    def _without_champion(self) -> str:
        if self.deployed_champion is None:
            return (
                f"model {self.model!r} has no champion yet; wait for its first training, "
                f"or run `tailrace promote {self.model} VERSION --reason …`"
            )
        problem = self.problems.get(self.deployed_champion, "it is being loaded")
        return f"champion {self.deployed_champion} of model {self.model!r} cannot answer: {problem}"


def bucket(model: str, key: str) -> int:
    """0 to 99, the same for the same model and key on every machine."""
    digest = blake2b(f"{model}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 100


class Table:
    """The arms of all models. Swapping replaces one immutable mapping by another; readers take no lock."""

    def __init__(self) -> None:
        self._arms: Mapping[str, Arms] = {}

    def __iter__(self) -> Iterator[Arms]:
        """Every model's arms."""
        return iter(self._arms.values())

    def get(self, model: str) -> Arms | None:
        """The model's arms, or None."""
        return self._arms.get(model)

    def find(self, model: str) -> Arms:
        """The model's arms. Raises Refused when there is no such model."""
        arms = self._arms.get(model)
        if arms is None:
            known = ", ".join(sorted(self._arms)[:12]) or "none"
            raise Refused("unknown", f"model {brief(model)} is unknown; models known here: {known}")
        return arms

    def swap(self, arms: Arms) -> None:
        """From now on these arms answer for their model."""
        self._arms = {**self._arms, arms.model: arms}

    def drop(self, model: str) -> None:
        """The model is gone."""
        self._arms = {name: arms for name, arms in self._arms.items() if name != model}
