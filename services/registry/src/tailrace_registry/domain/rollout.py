"""How a candidate becomes champion: the rules that need no person.

    candidate trained ──► registered ──► champion   when nobody answers yet
                                     ├─► shadow     otherwise: it answers unseen and is compared
                                     └─► rejected   trained for other features than the spec has now
    arms compared     ──► shadow ──► canary ──► champion   `better`, on enough examples of the stage
                      ──► rejected                         a batch version: `worse`, or undecided for too long
                      ──► shadow                           a continual version in canary: it goes on learning instead
    champion replaced ──► shadow (stands by) ──► champion  compared `better` than the new one: the new one is rolled back,
                                                           and its line is paused until a person looks; alerts
                                                           do the same (`rollback.py`)
                                             ──► retired   no better on `standby_examples`; a continual one learns on

A comparison with a champion that is champion no longer, or of a stage that the candidate has left, is stale and moves
nothing: so a comparison that comes twice, or late, does no harm. What is better still has to pass the spec's gates
(`gates.py`); one that has not done so after `max_examples` is treated as one that is no better. With `rollout.automatic: false` candidates wait as
shadows and a person decides; with `rollout.approval: true` they go as far as canary, and wait there.
"""

from __future__ import annotations

from dataclasses import replace

from tailrace_contracts.audit import digest_of
from tailrace_contracts.events import (
    ArmsCompared,
    CandidateTrained,
    Evidence,
    GateJudged,
    RevisionTrained,
    VersionChanged,
)
from tailrace_contracts.spec import ModelSpec
from tailrace_registry.domain.gates import judged, unpassed, words_of
from tailrace_registry.domain.model import MAX_PREDECESSORS, MAX_SHADOWS, Decision, Model, inputs_of, stand


def version_of(candidate: CandidateTrained, number: int) -> VersionChanged:
    """The candidate as a registered version."""
    return VersionChanged(
        model=candidate.model,
        version=number,
        stage="registered",
        run_id=candidate.run_id,
        learner=candidate.learner,
        continual=candidate.continual,
        revision=candidate.revision,
        artefact=candidate.artefact,
        reference=candidate.reference,
        lineage=candidate.lineage,
        metrics=candidate.metrics,
        time=candidate.time,
    )


def revised(version: VersionChanged, revision: RevisionTrained) -> VersionChanged:
    """The version with the artefact of a newer revision, and what that has learned."""
    lineage = version.lineage.model_copy(update={"trained_on": revision.trained_on, "examples": revision.examples})
    newer = {"revision": revision.revision, "artefact": revision.artefact, "lineage": lineage}
    return version.model_copy(update=newer)


def training_evidence(candidate: CandidateTrained) -> Evidence:
    """What a version is registered on: the training that made it."""
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in sorted(candidate.metrics.items()))
    imported = candidate.learner == "imported"
    made = (
        "trained elsewhere and imported"
        if imported
        else (f"{candidate.learner} learned {candidate.lineage.examples:,} examples")
    )
    summary = made + (f": {metrics}" if metrics else "")
    return Evidence(
        kind="training",
        event_id=candidate.run_id,
        summary=summary,
        derived_from=candidate.lineage.trained_on,
        sha256=digest_of(candidate),
    )


def comparison_evidence(compared: ArmsCompared) -> Evidence:
    """What a move of a candidate rests on: the comparison, in one line."""
    summary = (
        f"version {compared.candidate} is {compared.verdict} against version {compared.champion} on "
        f"{compared.examples:,} examples: {_figures(compared)}, difference {compared.mean_difference:+.4f} "
        f"in [{compared.lower:+.4f}, {compared.upper:+.4f}]"
    )
    return Evidence(
        kind="comparison",
        event_id=compared.evaluation_id,
        summary=summary,
        derived_from=compared.derived_from,
        sha256=digest_of(compared),
    )


def _figures(compared: ArmsCompared) -> str:
    """How both did: accuracy, or the mean absolute error of a regression."""
    if compared.candidate_accuracy is not None and compared.champion_accuracy is not None:
        return f"accuracy {compared.candidate_accuracy:.4f} and {compared.champion_accuracy:.4f}"
    candidate, champion = compared.candidate_metrics.get("mae", 0.0), compared.champion_metrics.get("mae", 0.0)
    return f"mean absolute error {candidate:.4g} and {champion:.4g}"


def _may_be_first(model: Model, version: VersionChanged) -> bool:
    expected = not version.continual or model.spec.learners.batch is None
    rollout = model.spec.rollout
    return model.champion is None and rollout.automatic and not rollout.approval and expected


def register(
    model: Model, candidate: CandidateTrained, trained_for: ModelSpec, newest: RevisionTrained | None = None
) -> Decision:
    """A new candidate gets its number and its first stage.

    `trained_for` is the spec revision that it was trained for. `newest` is its run's newest revision, where that came
    here before the candidate did.
    """
    number = model.newest + 1
    version = version_of(candidate, number)
    if newest is not None and newest.revision > version.revision:
        version = revised(version, newest)
    evidence = training_evidence(candidate)
    entered = Decision(model).enter(version, evidence.summary)
    if inputs_of(trained_for) != inputs_of(model.spec):
        why = (
            f"it was trained for the features and label of spec revision {candidate.lineage.spec_revision}, "
            f"and revision {model.spec_revision} has others"
        )
        misfit = replace(entered, model=replace(entered.model, misfits=model.misfits | {number}))
        return misfit.move(number, "rejected", why).because(why, evidence)
    if _may_be_first(model, version):
        why = f"version {number} is the first version of {model.name} that can answer"
        first = evidence.model_copy(update={"kind": "first-version", "summary": why})
        return crown(entered, number, why).because(why, evidence, first)
    why = _waiting_for(model)
    return _with_room(_replacing_older(entered.move(number, "shadow", why), number), number).because(why, evidence)


def _waiting_for(model: Model) -> str:
    if model.champion is not None:
        return f"it answers unseen and is compared with version {model.champion}"
    if not model.spec.rollout.automatic:
        return "it waits for a person, because rollout.automatic is false"
    if model.spec.rollout.approval:
        return f"it waits for `tailrace promote {model.name} VERSION --reason …`, because rollout.approval is true"
    return "it waits for the first version of the batch learner to answer, and can be promoted by a person"


def _replacing_older(decision: Decision, newcomer: int) -> Decision:
    """A newer candidate of the same kind takes the place of one that still waits in shadow."""
    kind = decision.model.versions[newcomer].continual
    for older in decision.model.shadows:
        if older not in {newcomer, decision.model.standby} and decision.model.versions[older].continual == kind:
            decision = decision.move(older, "retired", f"version {newcomer} is newer and takes its place")
    return decision


def _with_room(decision: Decision, keep: int) -> Decision:
    """At most `MAX_SHADOWS`: batch versions leave before continual ones, older before newer."""
    surplus = len(decision.model.shadows) - MAX_SHADOWS
    versions = decision.model.versions
    stay = {keep, decision.model.standby}
    leaving = sorted((n for n in decision.model.shadows if n not in stay), key=lambda n: (versions[n].continual, n))
    for number in leaving[: max(surplus, 0)]:
        decision = decision.move(number, "retired", f"at most {MAX_SHADOWS} versions answer unseen")
    return decision


def crown(decision: Decision, number: int, why: str) -> Decision:
    """A version becomes champion. The old champion steps down, and whoever was in canary is compared anew."""
    model = decision.model
    old, canary = model.champion, model.canary
    if model.standby not in {None, number}:
        decision = _released(decision, f"version {number} is champion, and version {old} stands by now")
    if old is not None:
        decision = _stepped_down(decision, old, number)
    decision = _canary_steps_back(decision, number, canary).move(number, "champion", why)
    predecessors = model.predecessors if old is None else (*model.predecessors, old)[-MAX_PREDECESSORS:]
    decision = replace(decision, model=replace(decision.model, predecessors=predecessors, returned=False))
    return _with_room(decision, number)


def _stepped_down(decision: Decision, old: int, number: int) -> Decision:
    """The champion makes room for another. It stands by to return, if the spec asks for that."""
    model = decision.model
    examples = model.spec.rollout.standby_examples
    if examples and old not in model.misfits:
        why = f"version {number} is champion; it stands by for {examples:,} examples"
        decision = decision.move(old, "shadow", why)
        return replace(decision, model=replace(decision.model, standby=old))
    stays = model.versions[old].continual
    fate = "it goes on learning, unseen" if stays else "its artefact is kept"
    return decision.move(old, "shadow" if stays else "retired", f"version {number} is champion; {fate}")


def _released(decision: Decision, why: str) -> Decision:
    """Nobody stands by any more. A continual version goes on learning, unseen, as a candidate like others."""
    number = decision.model.standby
    if number is not None and not decision.model.versions[number].continual:
        decision = decision.move(number, "retired", why)
    return replace(decision, model=replace(decision.model, standby=None))


def return_to(decision: Decision, number: int, why: str) -> Decision:
    """The champion is rolled back and an earlier one answers again."""
    model = decision.model
    if model.standby not in {None, number}:
        decision = _released(decision, f"version {number} is champion again")
    if model.champion is not None:
        decision = decision.move(model.champion, "rolled-back", why)
    decision = _canary_steps_back(decision, number, model.canary).move(number, "champion", why)
    remaining = model.predecessors[: len(model.predecessors) - 1 - model.predecessors[::-1].index(number)]
    decision = replace(decision, model=replace(decision.model, predecessors=remaining, returned=True))
    return _with_room(decision, number)


def _canary_steps_back(decision: Decision, champion: int, canary: int | None) -> Decision:
    if canary is None or canary == champion:
        return decision
    return decision.move(canary, "shadow", f"version {champion} is champion now, so it is compared anew")


def compare(model: Model, compared: ArmsCompared) -> Decision:
    """A comparison moves its candidate, or nothing."""
    stage = model.stage(compared.candidate)
    if stage != compared.stage or model.champion != compared.champion:
        return stand(model, "the comparison is stale")
    if compared.candidate == model.standby:
        return _return_or_release(model, compared)
    gates = judged(model, compared)
    evidence = comparison_evidence(compared)
    noted = Decision(model).judge(compared.candidate, gates, evidence)
    decided = replace(_decided(noted.model, compared, gates), passages=noted.passages, judged=noted.judged)
    if decided.model == model:
        return decided
    reason = evidence.summary if decided.moves else decided.reason
    passed = gate_evidence(gates, evidence) if compared.verdict == "better" else ()
    return decided.because(reason, evidence, *passed)


def _decided(model: Model, compared: ArmsCompared, gates: tuple[GateJudged, ...]) -> Decision:
    if not model.spec.rollout.automatic:
        return stand(model, "a person decides, because rollout.automatic is false")
    return _better(model, compared, gates) if compared.verdict == "better" else _not_better(model, compared)


def gate_evidence(gates: tuple[GateJudged, ...], comparison: Evidence) -> list[Evidence]:
    """What a move rests on beside the verdict of the comparison."""
    return [
        comparison.model_copy(update={"summary": words_of((gate,)), "derived_from": gate.derived_from})
        for gate in gates
    ]


def _return_or_release(model: Model, compared: ArmsCompared) -> Decision:
    """The champion before this one is better after all; or it has stood by for long enough."""
    evidence, seen = comparison_evidence(compared), compared.stage_examples
    if compared.verdict == "better":
        why = f"version {compared.candidate} did better on {seen:,} examples since version {compared.champion} replaced it"
        return rolled_back(model, compared.candidate, why, evidence)
    if seen < model.spec.rollout.standby_examples:
        return stand(model, "it stands by")
    why = f"version {compared.champion} held its place for {seen:,} examples"
    return _released(Decision(model), why).because(why, evidence)


def rolled_back(model: Model, number: int, why: str, evidence: Evidence) -> Decision:
    """A version answers again; nothing more of the champion's line is promoted until a person looks."""
    champion = model.champion
    if champion is None:
        return stand(model, "nobody answers")
    line = model.line(champion)
    done = return_to(Decision(model), number, why)
    reason = f"version {champion} was rolled back: {why}"
    paused = replace(done.model, paused={**done.model.paused, line: reason})
    return replace(done, model=paused).because(
        f"version {number} is the champion of {model.name} again: {why}; "
        f"nothing of the {line} line is promoted automatically until `tailrace resume {model.name}`",
        evidence,
    )


def _better(model: Model, compared: ArmsCompared, gates: tuple[GateJudged, ...]) -> Decision:
    rollout, number, seen = model.spec.rollout, compared.candidate, compared.stage_examples
    if model.line(number) in model.paused:
        return stand(model, f"promotions are paused: {model.paused[model.line(number)]}")
    why = f"it is better than version {compared.champion} on {seen:,} examples as {compared.stage}"
    if held := unpassed(gates):
        return _held(model, compared, f"{why}, but {words_of(held)}")
    if compared.stage == "canary" and seen >= rollout.canary_min_examples:
        if rollout.approval:
            return stand(model, f"{why}; `tailrace promote {model.name} {number} --reason …` approves it")
        return crown(Decision(model), number, why)
    if compared.stage == "shadow" and seen >= rollout.shadow_min_examples and model.canary is None:
        return Decision(model).move(number, "canary", why)
    return stand(model, "better so far, on too few examples or with another version in canary")


def _not_better(model: Model, compared: ArmsCompared) -> Decision:
    overdue = compared.stage_examples >= model.spec.rollout.max_examples
    if compared.verdict == "undecided" and not overdue:
        return stand(model, "undecided so far")
    found, seen = "worse than" if compared.verdict == "worse" else "no better than", compared.stage_examples
    why = f"it is {found} version {compared.champion} on {seen:,} examples as {compared.stage}"
    return _let_go(model, compared, why)


def _held(model: Model, compared: ArmsCompared, why: str) -> Decision:
    """The candidate is better and a gate is not passed."""
    if compared.stage_examples < model.spec.rollout.max_examples:
        return stand(model, why)
    return _let_go(model, compared, why)


def _let_go(model: Model, compared: ArmsCompared, why: str) -> Decision:
    """The trial is over without a promotion."""
    number = compared.candidate
    if not model.versions[number].continual:
        return Decision(model).move(number, "rejected", why)
    if compared.stage == "canary":
        return _with_room(Decision(model).move(number, "shadow", f"{why}; it goes on learning, unseen"), number)
    return stand(model, "a continual version goes on learning as a shadow")
