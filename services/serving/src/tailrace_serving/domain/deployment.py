"""What the topics say: the newest spec, versions and deployment of every model, and which artefacts follow from them.

`Facts` only remembers. `plan` says which versions are to answer; `arranged` makes the new arms out of what could be
loaded. The one rule with judgement in it: a champion that cannot be loaded does not take the place of one that
answers. The old one goes on, under the spec that it was loaded with, and the problem is shown beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tailrace_contracts.events import DeploymentChanged, SpecApplied, VersionChanged
from tailrace_contracts.spec import ClassLabel, ModelSpec, NumericalFeature
from tailrace_serving.domain.arms import Arms, Loaded
from tailrace_serving.domain.features import FeatureRules
from tailrace_serving.domain.tally import Tally


@dataclass(slots=True)
class Facts:
    """The newest event of each kind, by model. Events older than what is known change nothing."""

    specs: dict[str, SpecApplied] = field(default_factory=dict)
    versions: dict[str, dict[int, VersionChanged]] = field(default_factory=dict)
    deployments: dict[str, DeploymentChanged] = field(default_factory=dict)

    def learn_spec(self, event: SpecApplied) -> bool:
        """Take a spec in. Whether what is to be served may have changed."""
        known = self.specs.get(event.model)
        if known and known.spec_revision > event.spec_revision:
            return False
        self.specs[event.model] = event
        return True

    def learn_version(self, event: VersionChanged) -> bool:
        """Take a version in. Whether what is to be served may have changed: not by one in no arm."""
        versions = self.versions.setdefault(event.model, {})
        known = versions.get(event.version)
        if known and known.revision > event.revision:
            return False
        versions[event.version] = event
        return event.version in self._deployed(event.model)

    def learn_deployment(self, event: DeploymentChanged) -> bool:
        """Take a deployment in. Whether what is to be served may have changed."""
        known = self.deployments.get(event.model)
        if known and known.sequence > event.sequence:
            return False
        self.deployments[event.model] = event
        return True

    def _deployed(self, model: str) -> set[int]:
        deployment = self.deployments.get(model)
        return set(roles(deployment)) if deployment else set()


def roles(deployment: DeploymentChanged) -> list[int]:
    """The versions of a deployment, the champion first."""
    canary = [deployment.canary.version] if deployment.canary else []
    champion = [deployment.champion] if deployment.champion else []
    return list(dict.fromkeys([*champion, *canary, *deployment.shadows]))


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be served for one model: its spec, its deployment, and the versions known so far."""

    spec: ModelSpec
    deployment: DeploymentChanged | None
    versions: Mapping[int, VersionChanged]

    def missing(self) -> dict[int, str]:
        """Deployed versions of which nothing is known yet."""
        wanted = roles(self.deployment) if self.deployment else []
        return {version: "its version event has not arrived yet" for version in wanted if version not in self.versions}


def plan(facts: Facts, model: str) -> Plan | None:
    """What is to be served for a model, or None when its spec is not known."""
    applied = facts.specs.get(model)
    if applied is None:
        return None
    deployment = facts.deployments.get(model)
    known = facts.versions.get(model, {})
    wanted = roles(deployment) if deployment else []
    return Plan(applied.spec, deployment, {version: known[version] for version in wanted if version in known})


def questions(spec: ModelSpec) -> tuple[object, ...]:
    """What a model is asked and answers. An artefact serves every spec with the same; limits and policies may change."""
    columns = tuple(
        (each.name, None if isinstance(each, NumericalFeature) else each.categories) for each in spec.features
    )
    label = spec.label
    return columns, (label.classes, label.positive) if isinstance(label, ClassLabel) else label.limits


def reusable(previous: Arms | None, spec: ModelSpec, wanted: VersionChanged) -> Loaded | None:
    """What is loaded already and still fits: same artefact, same questions."""
    if previous is None or questions(previous.spec) != questions(spec):
        return None
    revision = wanted.revision if wanted.continual else None
    for _, loaded in previous.members():
        if (loaded.version, loaded.revision, loaded.sha256) == (wanted.version, revision, wanted.artefact.sha256):
            return loaded
    return None


def arranged(plan: Plan, loaded: Mapping[int, Loaded], problems: Mapping[int, str], previous: Arms | None) -> Arms:
    """The arms for a plan, out of what could be loaded.

    A version whose newest artefact failed keeps its earlier revision in whichever arm it now has. Without the deployed
    champion the previous champion stays, and a previous champion that does not fit the new spec keeps its own spec.
    """
    deployment = plan.deployment
    same_questions = previous is None or questions(previous.spec) == questions(plan.spec)
    earlier = {each.version: each for _, each in previous.members()} if previous and same_questions else {}
    having = {**earlier, **loaded}
    champion = having.get(deployment.champion) if deployment and deployment.champion else None
    if champion is None and previous and previous.champion and deployment and deployment.champion:
        if not same_questions:
            return _kept(previous, deployment, problems)
        champion = previous.champion
    canary = having.get(deployment.canary.version) if deployment and deployment.canary else None
    shadows = tuple(having[each] for each in deployment.shadows if each in having) if deployment else ()
    return Arms(
        model=plan.spec.model,
        spec=plan.spec,
        rules=previous.rules if previous and previous.spec is plan.spec else FeatureRules(plan.spec),
        champion=champion,
        canary=canary if canary is not champion else None,
        canary_percent=deployment.canary.percent if deployment and deployment.canary else 0,
        shadows=tuple(each for each in shadows if each is not champion and each is not canary),
        deployed_champion=deployment.champion if deployment else None,
        problems=dict(problems),
        tally=previous.tally if previous else Tally(),
    )


def _kept(previous: Arms, deployment: DeploymentChanged, problems: Mapping[int, str]) -> Arms:
    return Arms(
        model=previous.model,
        spec=previous.spec,
        rules=previous.rules,
        champion=previous.champion,
        deployed_champion=deployment.champion,
        problems=dict(problems),
        tally=previous.tally,
    )
