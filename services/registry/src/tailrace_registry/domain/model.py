"""A model as the registry knows it: its spec, its versions with their stages, and who answers now.

The stages of a version and the moves between them:

    registered ──► shadow ──► canary ──► champion ──► retired
        │            │          │           ├──► rolled-back
        │            │          └► shadow   └──► shadow       (a continual version goes on learning)
        └──► champion (the first)           ▲
                                            └── shadow, canary, rejected, rolled-back, retired (by a person)
    registered, shadow, canary ──► rejected     shadow ──► retired (a newer candidate takes its place)

A champion that is replaced stands by for a while as a shadow: if it turns out to be the better one, it returns.

`LEGAL` is that picture as a table. Everything that moves a version goes through `Decision.move`, which refuses any other
move by name: a mistake in the rules stops the partition instead of writing a state that nobody can explain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tailrace_contracts.events import (
    CanaryArm,
    DeploymentChanged,
    Evidence,
    GateJudged,
    Line,
    Mute,
    MutesChanged,
    Stage,
    VersionChanged,
)
from tailrace_contracts.spec import ClassLabel, ModelSpec

MAX_SHADOWS = 3
"""Every shadow answers every request once more; more than three cost more than they tell."""

MAX_PREDECESSORS = 50
"""So many champions back a rollback can go."""

ACTING: frozenset[Stage] = frozenset({"registered", "shadow", "canary", "champion"})
"""The stages of versions that facts can still move; others move only when a person names them."""

LEGAL: Mapping[Stage | None, frozenset[Stage]] = {
    None: frozenset({"registered"}),
    "registered": frozenset({"shadow", "champion", "rejected"}),
    "shadow": frozenset({"canary", "champion", "rejected", "retired"}),
    "canary": frozenset({"champion", "shadow", "rejected"}),
    "champion": frozenset({"retired", "shadow", "rolled-back"}),
    "rejected": frozenset({"champion"}),
    "rolled-back": frozenset({"champion"}),
    "retired": frozenset({"champion"}),
}
"""From each stage (None: not registered yet), the stages that a version may go to."""


class IllegalMove(Exception):  # noqa: N818 - named for what happened
    """A rule asked for a move that the table does not have."""


@dataclass(frozen=True, slots=True)
class Model:
    """One model at one moment: with the versions that can matter to a decision, not with all that there ever were.

    Those are the ones that act, those that a rollback could return to, and those that a command names.
    """

    name: str
    spec: ModelSpec
    spec_revision: int
    versions: Mapping[int, VersionChanged] = field(default_factory=dict)
    misfits: frozenset[int] = frozenset()
    """Versions trained for other features or another label than the spec's: they can never answer."""
    predecessors: tuple[int, ...] = ()
    """The champions before the present one, oldest first: where a rollback goes."""
    deployment: DeploymentChanged | None = None
    """The newest deployment that was announced."""
    standby: int | None = None
    """The champion before this one, while it answers unseen and can return at once."""
    returned: bool = False
    """Whether the champion answers again because another was rolled back."""
    paused: Mapping[Line, str] = field(default_factory=dict)
    """Lines of which nothing is promoted automatically, and why."""
    aliases: Mapping[str, int] = field(default_factory=dict)
    """Names that people gave to versions."""
    muting: MutesChanged | None = None
    """The mutes as they were announced last."""
    counted: int = 0
    """How many versions there are, those that are not in `versions` too."""

    @property
    def mutes(self) -> tuple[Mute, ...]:
        """The mutes announced last, in force or ended."""
        return self.muting.mutes if self.muting else ()

    def stage(self, version: int) -> Stage | None:
        """The stage of a version; None where there is no such version."""
        known = self.versions.get(version)
        return known.stage if known else None

    def at(self, stage: Stage) -> tuple[int, ...]:
        """The numbers of the versions in a stage, ascending."""
        return tuple(sorted(number for number, version in self.versions.items() if version.stage == stage))

    @property
    def champion(self) -> int | None:
        """The version that answers."""
        return next(iter(self.at("champion")), None)

    @property
    def canary(self) -> int | None:
        """The version that answers a part of the traffic."""
        return next(iter(self.at("canary")), None)

    @property
    def shadows(self) -> tuple[int, ...]:
        """The versions that answer unseen."""
        return self.at("shadow")

    def line(self, version: int) -> Line:
        """Where a version comes from."""
        return "continual" if self.versions[version].continual else "batch"

    @property
    def newest(self) -> int:
        """The number of the newest version, which is how many there are."""
        return max(self.counted, max(self.versions, default=0))


def inputs_of(spec: ModelSpec) -> tuple[Any, ...]:
    """What an artefact is built for: two specs with equal inputs can be served by the same version.

    Limits, policies and the label's horizon may change under a version; names, order, types, categories and the
    label's meaning may not.
    """
    features = tuple((f.type, f.name, getattr(f, "categories", ())) for f in spec.features)
    label = spec.label
    asked = (label.classes, label.positive) if isinstance(label, ClassLabel) else None
    return features, spec.task, label.name, asked


@dataclass(frozen=True, slots=True)
class Arms:
    """Who answers, in which role: what a deployment says beside its reason."""

    spec_revision: int
    champion: int | None
    canary: CanaryArm | None
    shadows: tuple[int, ...]
    standby: int | None
    paused: Mapping[Line, str]
    aliases: Mapping[str, int]


def arms_of(model: Model) -> Arms:
    """Who answers by the stages of the versions and the percentage of the spec."""
    canary = (
        None if model.canary is None else CanaryArm(version=model.canary, percent=model.spec.rollout.canary_percent)
    )
    return Arms(model.spec_revision, model.champion, canary, model.shadows, model.standby, model.paused, model.aliases)


def arms_changed(model: Model) -> bool:
    """Whether the last deployment announced no longer says who answers. Nobody, never announced, is no change."""
    now, announced = arms_of(model), model.deployment
    if announced is None:
        return (now.champion, now.canary, now.shadows, now.paused, now.aliases) != (None, None, (), {}, {})
    return now != Arms(
        announced.spec_revision,
        announced.champion,
        announced.canary,
        announced.shadows,
        announced.standby,
        announced.paused,
        announced.aliases,
    )


@dataclass(frozen=True, slots=True)
class Move:
    """One version went from one stage to another, and why, in words for a person."""

    version: int
    before: Stage | None
    after: Stage
    why: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A gate was judged otherwise than before, on this comparison."""

    version: int
    gate: GateJudged
    comparison: Evidence
    was: str
    """Its state before; empty where it was not judged before."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a fact: the model after it, the moves that led there, or why nothing was done."""

    model: Model
    moves: tuple[Move, ...] = ()
    passages: tuple[Passage, ...] = ()
    judged: frozenset[int] = frozenset()
    """Versions whose gates are not what they were."""
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""
    """One sentence: what was done, or why it was refused."""
    refused: bool = False
    new_spec: bool = False
    training: bool = False
    new_mutes: tuple[Mute, ...] | None = None

    def enter(self, version: VersionChanged, why: str) -> Decision:
        """A version that was not known yet is registered."""
        if version.version in self.model.versions:
            raise IllegalMove(f"version {version.version} of {self.model.name} is registered already")
        versions = {**self.model.versions, version.version: version.model_copy(update={"stage": "registered"})}
        return self._moved(versions, Move(version.version, None, "registered", why))

    def move(self, version: int, after: Stage, why: str) -> Decision:
        """A version goes to another stage. Raises IllegalMove where `LEGAL` does not have the move."""
        before = self.model.stage(version)
        if before is None or after not in LEGAL[before]:
            raise IllegalMove(f"version {version} of {self.model.name} cannot go from {before} to {after}")
        anew = {"gates": ()} if after == "canary" else {}
        moved = self.model.versions[version].model_copy(update={"stage": after, **anew})
        return self._moved({**self.model.versions, version: moved}, Move(version, before, after, why))

    def judge(self, version: int, gates: tuple[GateJudged, ...], comparison: Evidence) -> Decision:
        """Keep how a version stands at its gates, if one of them has changed its state."""
        known = self.model.versions[version]
        before, now = ({gate.gate: gate.state for gate in each} for each in (known.gates, gates))
        if before == now:
            return self
        changed = tuple(
            Passage(version, gate, comparison, before.get(gate.gate, ""))
            for gate in gates
            if before.get(gate.gate) != gate.state
        )
        versions = {**self.model.versions, version: known.model_copy(update={"gates": gates})}
        model = replace(self.model, versions=versions)
        return replace(self, model=model, passages=self.passages + changed, judged=self.judged | {version})

    def because(self, reason: str, *evidence: Evidence) -> Decision:
        """The same decision with the sentence that explains it and what it rests on."""
        return replace(self, reason=reason, evidence=self.evidence + evidence)

    def _moved(self, versions: Mapping[int, VersionChanged], move: Move) -> Decision:
        leaves = move.version == self.model.standby and move.after != "shadow"
        standby = None if leaves else self.model.standby
        model = replace(self.model, versions=versions, standby=standby)
        return replace(self, model=model, moves=(*self.moves, move))


def refuse(model: Model, reason: str) -> Decision:
    """Nothing is done, for this reason."""
    return Decision(model, reason=reason, refused=True)


def stand(model: Model, reason: str = "") -> Decision:
    """Nothing has to be done."""
    return Decision(model, reason=reason)
