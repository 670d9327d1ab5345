"""The rollout state machine: every legal move, every refusal, and laws that hold after any sequence of facts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Literal, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace_contracts.audit import Link, end_of, verify_chain
from tailrace_contracts.events import (
    ApplySpec,
    AuditRecorded,
    Command,
    DeploymentChanged,
    Event,
    PauseRollout,
    PromoteVersion,
    RejectVersion,
    ResumeRollout,
    RollbackModel,
    SpecApplied,
    Stage,
    TrainingRequested,
    TrainModel,
    VersionChanged,
)
from tailrace_contracts.spec import ModelSpec
from tailrace_registry.domain.commands import first_spec, obey, run_of
from tailrace_registry.domain.facts import announce
from tailrace_registry.domain.model import LEGAL, MAX_SHADOWS, Decision, IllegalMove, Model
from tailrace_registry.domain.rollout import compare, register, version_of
from tailrace_registry.testing import NOON, a_candidate, a_command, a_comparison, a_spec

STAGES: tuple[Stage, ...] = get_args(Stage)


def a_model(*stages: Stage, continual: frozenset[int] = frozenset(), spec: ModelSpec | None = None) -> Model:
    """A model whose versions 1, 2, ... are in these stages."""
    versions = {
        number: version_of(a_candidate(f"run-{number}", continual=number in continual), number).model_copy(
            update={"stage": stage}
        )
        for number, stage in enumerate(stages, start=1)
    }
    return Model("rain", spec or a_spec(), 1, versions)


def stages_of(model: Model) -> dict[int, Stage]:
    """Each version's stage."""
    return {number: version.stage for number, version in model.versions.items()}


def after(model: Model, command: Command, reason: str = "") -> Decision:
    """What becomes of a command."""
    return obey(model, a_command(command, reason=reason), NOON)


def registered(model: Model, run_id: str, *, continual: bool = False) -> Decision:
    """What becomes of a candidate that was trained for the model's spec."""
    return register(model, a_candidate(run_id, continual=continual), model.spec)


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize(("before", "to"), list(product(STAGES, STAGES)))
def test_table_decides_every_move(before: Stage, to: Stage) -> None:
    """A version could take a way through the stages that nobody designed, or not take one that was."""
    decision = Decision(a_model(before))
    if to in LEGAL[before]:
        moved = decision.move(1, to, "why")
        assert stages_of(moved.model) == {1: to}
        assert [(m.version, m.before, m.after, m.why) for m in moved.moves] == [(1, before, to, "why")]
        return
    with pytest.raises(IllegalMove, match=f"version 1 of rain cannot go from {before} to {to}"):
        decision.move(1, to, "why")


def test_unknown_version_never_moves() -> None:
    """A rule that names a version which does not exist would write a stage for nothing."""
    with pytest.raises(IllegalMove, match="version 7 of rain cannot go from None to champion"):
        Decision(a_model("shadow")).move(7, "champion", "why")


def test_version_is_registered_once() -> None:
    """A second registration under the same number would replace an artefact that serves."""
    model = a_model("champion")
    with pytest.raises(IllegalMove, match="version 1 of rain is registered already"):
        Decision(model).enter(model.versions[1], "again")


# ---------------------------------------------------------------- candidates


def test_first_batch_version_answers_at_once() -> None:
    """A new model would answer nobody until a person promotes its only version."""
    decision = registered(a_model(), "a")
    assert stages_of(decision.model) == {1: "champion"}
    assert [(m.before, m.after) for m in decision.moves] == [(None, "registered"), ("registered", "champion")]
    assert [e.kind for e in decision.evidence] == ["training", "first-version"]


def test_imported_version_is_a_candidate_like_any_other() -> None:
    """A model that was trained elsewhere could not be served, or its evidence would name a training of ours."""
    imported = a_candidate("import-1", continual=False).model_copy(update={"learner": "imported"})
    first = register(a_model(), imported, a_spec())
    assert stages_of(first.model) == {1: "champion"}
    assert first.evidence[0].summary.startswith("trained elsewhere and imported")
    later = register(a_model("champion"), imported, a_spec())
    assert stages_of(later.model) == {1: "champion", 2: "shadow"}


def test_continual_version_waits_where_a_batch_learner_is_expected() -> None:
    """A river version of the first 200 examples would answer before the network that the owner asked for."""
    decision = registered(a_model(), "a", continual=True)
    assert stages_of(decision.model) == {1: "shadow"}
    assert stages_of(registered(decision.model, "b").model) == {1: "shadow", 2: "champion"}


def test_first_continual_version_answers_where_there_is_no_batch_learner() -> None:
    """A model that only learns on the stream would never answer."""
    model = a_model(spec=a_spec(learners={"online": {}}))
    assert stages_of(registered(model, "a", continual=True).model) == {1: "champion"}


@pytest.mark.parametrize(
    ("rollout", "why"),
    [
        ({"automatic": False}, "waits for a person"),
        ({"approval": True}, "waits for `tailrace promote rain VERSION --reason …`"),
    ],
)
def test_nothing_answers_by_itself_when_a_person_promotes(rollout: dict[str, bool], why: str) -> None:
    """The spec would ask for approval, and a version that nobody has approved be put before users."""
    decision = registered(a_model(spec=a_spec(rollout=rollout)), "a")
    assert stages_of(decision.model) == {1: "shadow"}
    assert why in decision.reason


def test_later_candidate_starts_unseen() -> None:
    """A new version would answer users before it has shown anything."""
    decision = registered(a_model("champion"), "b")
    assert stages_of(decision.model) == {1: "champion", 2: "shadow"}


@pytest.mark.parametrize("continual", [False, True])
def test_newer_candidate_replaces_one_of_its_kind_that_waits(continual: bool) -> None:
    """Shadows would pile up, each answering every request, while the newest is the one that matters."""
    both = frozenset({2}) if continual else frozenset()
    decision = registered(a_model("champion", "shadow", continual=both), "c", continual=continual)
    assert stages_of(decision.model) == {1: "champion", 2: "retired", 3: "shadow"}


def test_newer_candidate_leaves_a_canary_alone() -> None:
    """A candidate that already proved itself in shadow would be thrown away by the next training."""
    decision = registered(a_model("champion", "canary"), "c")
    assert stages_of(decision.model) == {1: "champion", 2: "canary", 3: "shadow"}


def test_newer_batch_candidate_leaves_the_continual_one_alone() -> None:
    """Each retraining would throw the learner on the stream out of the comparison."""
    model = a_model("champion", "shadow", continual=frozenset({2}))
    assert stages_of(registered(model, "c").model) == {1: "champion", 2: "shadow", 3: "shadow"}


def test_fourth_shadow_makes_room() -> None:
    """Every request would be answered by ever more unseen versions."""
    model = a_model("champion", "canary", "shadow", "shadow", "shadow", continual=frozenset({3, 4, 5}))
    decision = after(model, PromoteVersion(version=3))
    assert stages_of(decision.model) == {1: "retired", 2: "shadow", 3: "champion", 4: "shadow", 5: "shadow"}
    crowded = a_model("champion", "canary", "shadow", "shadow", "shadow", "retired", continual=frozenset({3, 4, 5}))
    decision = after(crowded, PromoteVersion(version=6))
    assert stages_of(decision.model)[2] == "retired"
    assert decision.model.shadows == (3, 4, 5)


def test_candidate_for_other_features_never_answers() -> None:
    """A version trained before the features changed would be asked with columns that it does not know."""
    older = a_spec(features=[{"type": "numerical", "name": "pressure"}])
    decision = register(a_model(), a_candidate("a"), older)
    assert stages_of(decision.model) == {1: "rejected"}
    refused = after(decision.model, PromoteVersion(version=1), reason="please")
    assert refused.refused
    assert "other features" in refused.reason


# ---------------------------------------------------------------- comparisons

Stage2 = Literal["shadow", "canary"]
Verdict = Literal["better", "worse", "undecided"]


@pytest.mark.parametrize(
    ("stage", "verdict", "examples", "continual", "becomes"),
    [
        ("shadow", "better", 99, False, "shadow"),
        ("shadow", "better", 100, False, "canary"),
        ("shadow", "better", 100, True, "canary"),
        ("shadow", "worse", 10, False, "rejected"),
        ("shadow", "worse", 10, True, "shadow"),
        ("shadow", "undecided", 999, False, "shadow"),
        ("shadow", "undecided", 1000, False, "rejected"),
        ("shadow", "undecided", 1000, True, "shadow"),
        ("canary", "better", 99, False, "canary"),
        ("canary", "better", 100, False, "champion"),
        ("canary", "better", 100, True, "champion"),
        ("canary", "worse", 10, False, "rejected"),
        ("canary", "worse", 10, True, "shadow"),
        ("canary", "undecided", 999, False, "canary"),
        ("canary", "undecided", 1000, False, "rejected"),
        ("canary", "undecided", 1000, True, "shadow"),
    ],
)
def test_comparison_moves_its_candidate(
    stage: Stage2,
    verdict: Verdict,
    examples: int,
    continual: bool,
    becomes: Stage,
) -> None:
    """A candidate would be promoted on too little, kept although it is worse, or wait for ever."""
    model = a_model("champion", stage, continual=frozenset({2} if continual else ()))
    compared = a_comparison(2, 1, verdict, stage=stage, examples=examples)
    decision = compare(model, compared)
    assert decision.model.stage(2) == becomes
    if becomes == stage:
        assert decision.moves == ()
    else:
        assert [e.event_id for e in decision.evidence] == [compared.evaluation_id]
        assert decision.evidence[0].derived_from == compared.derived_from


@pytest.mark.parametrize(("continual", "fate"), [(False, "retired"), (True, "shadow")])
def test_old_champion_steps_down(continual: bool, fate: Stage) -> None:
    """Two versions would answer as champion, or a version that learns on would be lost for good."""
    model = a_model("champion", "canary", continual=frozenset({1} if continual else ()))
    decision = compare(model, a_comparison(2, 1, "better", stage="canary"))
    assert stages_of(decision.model) == {1: fate, 2: "champion"}
    assert decision.model.predecessors == (1,)


def test_shadow_waits_while_another_is_in_canary() -> None:
    """Two canaries would share the traffic and neither could be judged."""
    decision = compare(a_model("champion", "canary", "shadow"), a_comparison(3, 1, "better"))
    assert decision.moves == ()


@pytest.mark.parametrize(
    "compared",
    [
        a_comparison(2, 9, "better"),
        a_comparison(2, 1, "better", stage="canary"),
        a_comparison(8, 1, "better"),
        a_comparison(1, 1, "worse"),
    ],
    ids=["other champion", "other stage", "unknown candidate", "the champion itself"],
)
def test_stale_comparison_moves_nothing(compared: object) -> None:
    """A comparison that comes late or twice would move a version on evidence about something else."""
    decision = compare(a_model("champion", "shadow"), compared)  # type: ignore[arg-type]  # all are comparisons
    assert decision.moves == ()
    assert "stale" in decision.reason


@pytest.mark.parametrize("verdict", ["better", "worse", "undecided"])
def test_person_decides_when_not_automatic(verdict: Verdict) -> None:
    """`automatic: false` would still let the machine promote or reject."""
    model = a_model("champion", "shadow", spec=a_spec(rollout={"automatic": False}))
    assert compare(model, a_comparison(2, 1, verdict, examples=10_000)).moves == ()


def test_last_step_waits_for_approval() -> None:
    """`approval: true` would serve to everybody what nobody has approved, or hold up what needs no approval."""
    spec = a_spec(rollout={"approval": True})
    in_canary = compare(a_model("champion", "shadow", spec=spec), a_comparison(2, 1, "better", examples=10_000)).model
    assert stages_of(in_canary) == {1: "champion", 2: "canary"}
    decision = compare(in_canary, a_comparison(2, 1, "better", examples=10_000, stage="canary"))
    assert decision.moves == ()
    assert decision.reason.endswith("`tailrace promote rain 2 --reason …` approves it")
    assert stages_of(after(decision.model, PromoteVersion(version=2)).model)[2] == "champion"
    worse = compare(in_canary, a_comparison(2, 1, "worse", examples=10_000, stage="canary"))
    assert stages_of(worse.model)[2] == "rejected"


# ---------------------------------------------------------------- commands


@pytest.mark.parametrize("stage", ["registered", "shadow", "canary", "retired"])
def test_person_promotes(stage: Stage) -> None:
    """A person could not overrule the evidence, or the audit would not say whose word it was."""
    decision = after(a_model("champion", stage), PromoteVersion(version=2))
    if stage == "registered":
        assert stages_of(decision.model) == {1: "retired", 2: "champion"}
    assert not decision.refused
    assert stages_of(decision.model) == {1: "retired", 2: "champion"}
    assert decision.evidence[0].summary == "ada asked for promote: no reason given"


@pytest.mark.parametrize("stage", ["rejected", "rolled-back"])
def test_version_taken_out_comes_back_with_a_reason_only(stage: Stage) -> None:
    """A slip of the hand would serve a version that was taken out for a reason."""
    model = a_model("champion", stage)
    refused = after(model, PromoteVersion(version=2))
    assert refused.refused
    assert refused.reason == f"version 2 of rain is {stage}; promote it again with a reason"
    allowed = after(model, PromoteVersion(version=2), reason="the label was wrong that week")
    assert stages_of(allowed.model) == {1: "retired", 2: "champion"}


def test_promotion_sends_another_canary_back() -> None:
    """A canary would be judged by what it showed against a champion that is gone."""
    decision = after(a_model("champion", "canary", "shadow"), PromoteVersion(version=3))
    assert stages_of(decision.model) == {1: "retired", 2: "shadow", 3: "champion"}


@pytest.mark.parametrize("stage", ["registered", "shadow", "canary"])
def test_person_rejects(stage: Stage) -> None:
    """A candidate that a person knows to be bad could not be taken out."""
    decision = after(a_model("champion", stage), RejectVersion(version=2))
    assert stages_of(decision.model) == {1: "champion", 2: "rejected"}


def test_rollback_returns_and_returns_again() -> None:
    """A second rollback would go back to the version that was just rolled back."""
    model = replace(a_model("retired", "retired", "champion"), predecessors=(1, 2))
    once = after(model, RollbackModel())
    assert stages_of(once.model) == {1: "retired", 2: "champion", 3: "rolled-back"}
    twice = after(once.model, RollbackModel())
    assert stages_of(twice.model) == {1: "champion", 2: "rolled-back", 3: "rolled-back"}
    thrice = after(twice.model, RollbackModel())
    assert thrice.refused
    assert thrice.reason == "there was no champion of rain before version 1 that could answer again"


def test_rollback_passes_over_what_was_taken_out() -> None:
    """A rollback would put a version before users that was itself rolled back."""
    model = replace(a_model("retired", "rolled-back", "champion"), predecessors=(1, 2))
    assert stages_of(after(model, RollbackModel()).model) == {1: "champion", 2: "rolled-back", 3: "rolled-back"}


def test_rollback_sends_the_canary_back() -> None:
    """A canary compared with the bad champion would be promoted for being better than that."""
    model = replace(a_model("retired", "champion", "canary"), predecessors=(1,))
    assert stages_of(after(model, RollbackModel()).model) == {1: "champion", 2: "rolled-back", 3: "shadow"}


def test_rollback_to_a_continual_version_that_learned_on() -> None:
    """A river version that stepped down to shadow could not come back."""
    model = replace(a_model("shadow", "champion", continual=frozenset({1})), predecessors=(1,))
    assert stages_of(after(model, RollbackModel()).model) == {1: "champion", 2: "rolled-back"}


REFUSALS: list[tuple[Model, Command, str]] = [
    (a_model(), PromoteVersion(version=1), "rain has no version 1; it has no version yet"),
    (a_model("champion"), PromoteVersion(version=5), "rain has no version 5; its versions are 1 to 1"),
    (a_model("champion"), PromoteVersion(version=1), "version 1 of rain is the champion already"),
    (a_model("champion"), RejectVersion(version=5), "rain has no version 5; its versions are 1 to 1"),
    (
        a_model("champion"),
        RejectVersion(version=1),
        "version 1 is the champion of rain; roll it back or promote another instead",
    ),
    (
        a_model("champion", "rejected"),
        RejectVersion(version=2),
        "version 2 of rain is rejected and no candidate any more",
    ),
    (
        a_model("champion", "rolled-back"),
        RejectVersion(version=2),
        "version 2 of rain is rolled-back and no candidate any more",
    ),
    (a_model("retired"), RejectVersion(version=1), "version 1 of rain is retired and no candidate any more"),
    (a_model("shadow"), RollbackModel(), "rain has no champion to roll back"),
    (
        a_model("champion"),
        RollbackModel(),
        "there was no champion of rain before version 1 that could answer again",
    ),
    (
        a_model(spec=a_spec(learners={"online": {}})),
        TrainModel(),
        "the spec of rain has no batch learner; add learners.batch to it first",
    ),
    (
        a_model(),
        ApplySpec(spec=a_spec("snow")),
        "the command names model rain and its spec is for snow; they must be the same",
    ),
    (
        a_model("champion"),
        ApplySpec(
            spec=a_spec(features=[{"type": "numerical", "name": "humidity"}, {"type": "numerical", "name": "wind"}])
        ),
        (
            "the spec adds wind and removes pressure, and the 1 version(s) of rain were trained without that; "
            "give the new spec a model name of its own"
        ),
    ),
    (
        a_model("champion"),
        ApplySpec(
            spec=a_spec(features=[{"type": "numerical", "name": "humidity"}, {"type": "numerical", "name": "pressure"}])
        ),
        (
            "the spec changes the features' order, types or categories, and the 1 version(s) of rain were trained without "
            "that; give the new spec a model name of its own"
        ),
    ),
    (
        a_model("rejected"),
        ApplySpec(spec=a_spec(label={"name": "rain", "positive": 0})),
        (
            "the spec changes the label, and the 1 version(s) of rain were trained without that; "
            "give the new spec a model name of its own"
        ),
    ),
]


@pytest.mark.parametrize(("model", "command", "reason"), REFUSALS, ids=[r[2][:60] for r in REFUSALS])
def test_refused_by_name(model: Model, command: Command, reason: str) -> None:
    """A person would be refused without being told why, or the model would change all the same."""
    decision = after(model, command)
    assert decision.refused
    assert decision.reason == reason
    assert decision.model == model
    assert decision.moves == ()


def test_first_spec_makes_the_model() -> None:
    """A model could not come into being."""
    decision = first_spec(a_spec(), a_command(ApplySpec(spec=a_spec())))
    assert (decision.model.spec_revision, decision.new_spec, decision.refused) == (1, True, False)
    wrong = first_spec(a_spec("snow"), a_command(ApplySpec(spec=a_spec("snow"))))
    assert wrong.refused


def test_identical_spec_is_unchanged() -> None:
    """Each deployment pipeline that applies its spec again would make a revision that says nothing new."""
    model = a_model("champion")
    decision = after(model, ApplySpec(spec=a_spec()))
    assert (decision.refused, decision.new_spec, decision.model) == (False, False, model)
    assert decision.reason == "unchanged: revision 1 of the spec of rain says the same"


def test_limits_and_rollout_may_change_under_a_version() -> None:
    """Correcting a limit would need a new model name."""
    features = [
        {"type": "numerical", "name": "pressure", "limits": {"min": 900, "max": 1100}},
        {"type": "numerical", "name": "humidity"},
    ]
    decision = after(a_model("champion"), ApplySpec(spec=a_spec(features=features)))
    assert (decision.model.spec_revision, decision.new_spec) == (2, True)


def test_features_may_change_before_there_is_a_version() -> None:
    """A typing error in a new spec could never be corrected."""
    decision = after(a_model(), ApplySpec(spec=a_spec(features=[{"type": "numerical", "name": "wind"}])))
    assert decision.new_spec


# ---------------------------------------------------------------- what is announced


def announced(decision: Decision, command: Command | None = None) -> tuple[Event, ...]:
    """The events of a decision."""
    issued = a_command(command) if command else None
    return announce(decision, Link(), NOON, issued).events


def test_promotion_is_announced_in_order() -> None:
    """Serving would hear of a deployment before its version, or the CLI of an answer before its effects."""
    command = PromoteVersion(version=2)
    model = replace(a_model("champion", "shadow"), spec_revision=3)
    events = announced(after(model, command), command)
    assert [event.type for event in events] == [
        "version-changed",
        "version-changed",
        "deployment-changed",
        "audit-recorded",
        "audit-recorded",
        "audit-recorded",
    ]
    deployment, answer = events[2], events[-1]
    assert isinstance(deployment, DeploymentChanged)
    assert isinstance(answer, AuditRecorded)
    assert (deployment.sequence, deployment.champion, deployment.spec_revision) == (1, 2, 3)
    assert deployment.evidence[0].kind == "command"
    assert (answer.command_id, answer.action, answer.subject, answer.outcome) == ("c-1", "promote", "version 2", "done")
    moves = [e for e in events[3:-1] if isinstance(e, AuditRecorded)]
    assert [(m.action, m.subject, m.actor, m.command_id) for m in moves] == [
        ("retired", "version 1", "ada", None),
        ("champion", "version 2", "ada", None),
    ]
    assert moves[0].reason == "from champion to retired: version 2 is champion; its artefact is kept"


def test_refusal_is_answered_and_changes_nothing() -> None:
    """Who asked would wait for ever, or a refusal would still be published as a change."""
    events = announced(after(a_model(), RollbackModel()), RollbackModel())
    assert [event.type for event in events] == ["audit-recorded"]
    assert isinstance(events[0], AuditRecorded)
    assert events[0].outcome == "refused"


def test_train_asks_for_the_same_run_twice() -> None:
    """A train command that is read again after a crash would train twice."""
    events = announced(after(a_model(), TrainModel()), TrainModel())
    asked = events[0]
    assert isinstance(asked, TrainingRequested)
    assert (asked.run_id, asked.requested_by, bool(asked.ranges)) == (run_of("c-1"), "ada", False)
    assert run_of("c-1") != run_of("c-2")


def test_spec_alone_announces_no_deployment() -> None:
    """Serving would be told that nobody answers for a model that never had an answer."""
    command = ApplySpec(spec=a_spec())
    events = announced(first_spec(a_spec(), a_command(command)), command)
    assert [event.type for event in events] == ["spec-applied", "audit-recorded"]
    assert isinstance(events[0], SpecApplied)


def test_new_canary_percent_is_announced() -> None:
    """A changed share of traffic would take effect only at the next promotion."""
    model = a_model("champion", "canary")
    first = announce(after(model, RejectVersion(version=9)), Link(), NOON)
    assert first.model.deployment is None
    standing = announce(registered(model, "c"), Link(), NOON).model
    command = ApplySpec(spec=a_spec(rollout={"canary_percent": 50}))
    events = announced(after(standing, command), command)
    deployment = next(e for e in events if isinstance(e, DeploymentChanged))
    assert deployment.sequence == 2
    assert deployment.canary is not None
    assert deployment.canary.percent == 50


# ---------------------------------------------------------------- laws

numbers = st.integers(1, 9)
verdicts: st.SearchStrategy[Verdict] = st.sampled_from(["better", "worse", "undecided"])
stages2: st.SearchStrategy[Stage2] = st.sampled_from(["shadow", "canary"])
specs = st.builds(
    lambda percent, automatic, width: a_spec(
        rollout={"canary_percent": percent, "automatic": automatic},
        features=[{"type": "numerical", "name": f"f{i}"} for i in range(width)],
    ),
    st.sampled_from([10, 20]),
    st.booleans(),
    st.integers(1, 2),
)
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(PromoteVersion, version=numbers),
    st.builds(RejectVersion, version=numbers),
    st.builds(RollbackModel),
    st.builds(TrainModel),
    st.builds(PauseRollout),
    st.builds(ResumeRollout),
    st.builds(ApplySpec, spec=specs),
)
Step = Callable[[Model, int], tuple[Decision, Command | None]]


def _commanded(command: Command, reason: str) -> Step:
    return lambda model, n: (obey(model, a_command(command, command_id=f"c-{n}", reason=reason), NOON), command)


def _trained(continual: bool, fits: bool) -> Step:
    other = a_spec(features=[{"type": "numerical", "name": "other"}])
    return lambda model, n: (
        register(model, a_candidate(f"run-{n}", continual=continual), model.spec if fits else other),
        None,
    )


def _compared(candidate: int, verdict: Verdict, stage: Stage2, examples: int) -> Step:
    return lambda model, _: (
        compare(model, a_comparison(candidate, model.champion or 1, verdict, stage=stage, examples=examples)),
        None,
    )


steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(_commanded, commands, st.sampled_from(["", "because"])),
    st.builds(_trained, st.booleans(), st.sampled_from([True, True, True, False])),
    st.builds(_compared, numbers, verdicts, stages2, st.sampled_from([10, 200, 20_000])),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, max_size=25), st.booleans())
def test_laws_hold_after_any_facts(facts: list[Step], stands_by: bool) -> None:
    """Some order of commands, trainings and comparisons would leave a model in a state that nobody can explain."""
    model, head, chain = a_model(spec=a_standby_spec() if stands_by else None), Link(), list[bytes]()
    for n, step in enumerate(facts):
        before = model
        decision, command = step(model, n)
        outcome = announce(decision, head, NOON, a_command(command, command_id=f"c-{n}") if command else None)
        model = outcome.model
        audit = [e for e in outcome.events if isinstance(e, AuditRecorded)]
        head = end_of(audit[-1]) if audit else head
        chain += [e.encode() for e in audit]
        assert len(model.at("champion")) <= 1
        assert len(model.at("canary")) <= 1
        assert len(model.shadows) <= MAX_SHADOWS
        assert model.standby is None or model.stage(model.standby) == "shadow"
        assert all(model.stage(misfit) == "rejected" for misfit in model.misfits)
        assert model.champion not in model.predecessors[-1:]
        assert not decision.refused or model == before
        changed = {e.version for e in outcome.events if isinstance(e, VersionChanged)}
        assert changed == {move.version for move in decision.moves}
        deployed = [e for e in outcome.events if isinstance(e, DeploymentChanged)]
        assert len(deployed) <= 1
        if model.deployment is not None:
            assert (model.deployment.champion, model.deployment.shadows) == (model.champion, model.shadows)
        else:
            assert model.champion is None
        assert len(audit) == len(decision.moves) + (command is not None)
    assert verify_chain(chain).intact


def test_chain_shows_every_kind_of_tampering() -> None:
    """An auditor could not tell a changed, lost, added or reordered entry from an honest log."""
    first = announce(registered(a_model(), "a"), Link(), NOON)
    entries = [e.encode() for e in first.events if isinstance(e, AuditRecorded)]
    second = announce(registered(first.model, "b"), end_of(first.events[-1]), NOON)  # type: ignore[arg-type]  # the last is an entry
    entries += [e.encode() for e in second.events if isinstance(e, AuditRecorded)]
    whole = verify_chain(entries)
    assert (whole.intact, whole.entries, whole.head.sequence) == (True, 4, 4)
    assert verify_chain(entries[2:], after=verify_chain(entries[:2]).head).intact
    assert verify_chain([*entries[:1], *entries[2:]]).broken_at == 2
    assert verify_chain([entries[0], entries[2], entries[1], entries[3]]).broken_at == 2
    assert verify_chain([entries[0], *entries]).broken_at == 2
    changed = json.loads(entries[1]) | {"actor": "mallory"}
    assert verify_chain([entries[0], json.dumps(changed), *entries[2:]]).broken_at == 2
    assert verify_chain([b"not json"]).broken_at == 1
    assert verify_chain([b"[]"]).reason == "audit entry 1 was changed, lost or added: it is not a JSON object"


def test_chain_of_a_later_release_is_still_verified() -> None:
    """An upgrade that adds a field to audit entries would make every older reader cry wolf."""
    from tailrace_contracts.audit import GENESIS, digest

    later = {"sequence": 1, "previous_sha256": GENESIS, "model": "rain", "a_new_field": [1.5, None]}
    assert verify_chain([json.dumps({**later, "sha256": digest(later)})]).intact


# ---------------------------------------------------------------- the one who stands by


def a_standby_spec(**rollout: object) -> ModelSpec:
    """A spec by which a champion stands by for 500 examples after it was replaced."""
    document = a_spec().model_dump(mode="json")
    document["rollout"] |= {"standby_examples": 500} | rollout
    return ModelSpec.model_validate(document)


def just_promoted(*, continual: frozenset[int] = frozenset(), **rollout: object) -> Model:
    """Version 2 has just taken version 1's place, which stands by."""
    model = a_model("champion", "canary", continual=continual, spec=a_standby_spec(**rollout))
    return compare(model, a_comparison(2, 1, "better", stage="canary")).model


@pytest.mark.parametrize("continual", [False, True])
def test_a_champion_that_is_replaced_stands_by(continual: bool) -> None:
    """There would be nothing to return to, and nothing to compare the new champion with."""
    model = just_promoted(continual=frozenset({1} if continual else ()))
    assert stages_of(model) == {1: "shadow", 2: "champion"}
    assert (model.standby, model.predecessors) == (1, (1,))


def test_the_one_who_stands_by_returns_when_it_is_better() -> None:
    """Users would be served by the worse version until somebody comes."""
    decision = compare(just_promoted(), a_comparison(1, 2, "better", examples=60))
    assert stages_of(decision.model) == {1: "champion", 2: "rolled-back"}
    assert (decision.model.standby, decision.model.predecessors) == (None, ())
    assert [each.kind for each in decision.evidence] == ["comparison"]
    assert "version 1 is the champion of rain again" in decision.reason
    assert "tailrace resume rain" in decision.reason


def test_it_returns_although_people_promote() -> None:
    """Where people promote, a bad promotion would stand until a person notices."""
    decision = compare(just_promoted(), a_comparison(1, 2, "better"))
    by_hand = compare(
        replace(just_promoted(), spec=a_standby_spec(automatic=False)), a_comparison(1, 2, "better", examples=60)
    )
    assert stages_of(by_hand.model) == stages_of(decision.model)


def test_after_a_rollback_its_line_waits_for_a_person() -> None:
    """The next version of the same trainer would be promoted and rolled back all night."""
    model = compare(just_promoted(continual=frozenset({1})), a_comparison(1, 2, "better")).model
    assert set(model.paused) == {"batch"}
    tried = registered(model, "run-3").model
    waiting = compare(tried, a_comparison(3, 1, "better"))
    assert waiting.model == tried
    assert "paused" in waiting.reason
    resumed = after(tried, ResumeRollout()).model
    assert stages_of(compare(resumed, a_comparison(3, 1, "better")).model)[3] == "canary"


def test_a_champion_that_holds_its_place_lets_the_other_go() -> None:
    """Every former champion would answer unseen for ever."""
    waiting = compare(just_promoted(), a_comparison(1, 2, "undecided", examples=499))
    assert waiting.moves == ()
    decision = compare(just_promoted(), a_comparison(1, 2, "worse", examples=500))
    assert stages_of(decision.model) == {1: "retired", 2: "champion"}
    assert decision.model.standby is None


def test_a_continual_version_that_stood_by_becomes_a_candidate_again() -> None:
    """It would be rolled back to for ever, or stop learning."""
    model = just_promoted(continual=frozenset({1}))
    released = compare(model, a_comparison(1, 2, "undecided", examples=500)).model
    assert (stages_of(released), released.standby) == ({1: "shadow", 2: "champion"}, None)
    assert stages_of(compare(released, a_comparison(1, 2, "better")).model)[1] == "canary"


def test_only_one_stands_by() -> None:
    """Old champions would pile up as shadows."""
    model = registered(just_promoted(), "run-3").model
    assert stages_of(model) == {1: "shadow", 2: "champion", 3: "shadow"}
    model = compare(model, a_comparison(3, 2, "better")).model
    model = compare(model, a_comparison(3, 2, "better", stage="canary")).model
    assert (stages_of(model), model.standby) == ({1: "retired", 2: "shadow", 3: "champion"}, 2)


@pytest.mark.parametrize("command", [RejectVersion(version=1), PromoteVersion(version=1), RollbackModel()])
def test_a_person_may_take_the_one_who_stands_by(command: Command) -> None:
    """A person's word on it would leave a model that waits for a version that is gone."""
    decision = after(just_promoted(), command)
    assert not decision.refused
    assert decision.model.standby in {None, 2}
    assert decision.model.standby is None or stages_of(decision.model)[2] == "shadow"


def test_a_person_pauses_and_resumes() -> None:
    """Somebody who looks at a rollout could not hold it."""
    model = a_model("champion", "shadow", "shadow", continual=frozenset({3}))
    paused = after(model, PauseRollout(), "I look at it")
    assert paused.model.paused == dict.fromkeys(("batch", "continual"), "paused by ada: I look at it")
    for number in (2, 3):
        assert compare(paused.model, a_comparison(number, 1, "better")).model == paused.model
    assert after(paused.model, ResumeRollout()).model.paused == {}
    assert after(model, ResumeRollout()).refused


def test_a_pause_and_the_one_who_stands_by_are_announced() -> None:
    """Nobody but the registry would know of them, and its books could not be made again from the topics."""
    model = replace(just_promoted(), deployment=None)
    (told,) = [each for each in announce(Decision(model), Link(), NOON).events if isinstance(each, DeploymentChanged)]
    assert (told.champion, told.standby, told.shadows, told.paused) == (2, 1, (1,), {})
    paused = after(a_model(), PauseRollout())
    issued = a_command(PauseRollout())
    events = announce(paused, Link(), NOON, issued).events
    assert [set(each.paused) for each in events if isinstance(each, DeploymentChanged)] == [{"batch", "continual"}]
