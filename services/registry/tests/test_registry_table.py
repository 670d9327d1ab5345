"""Every stage met by every command and every piece of evidence: what happens is in these tables, or nothing does."""

from __future__ import annotations

from itertools import product
from typing import Literal, get_args

import pytest

from tailrace_contracts.events import (
    AlertKind,
    Command,
    PauseRollout,
    PromoteVersion,
    RejectVersion,
    ResumeRollout,
    RollbackModel,
    Stage,
    TrainModel,
)
from tailrace_contracts.spec import ModelSpec
from tailrace_registry.domain.commands import obey
from tailrace_registry.domain.model import ACTING, LEGAL, Model
from tailrace_registry.domain.rollback import heed
from tailrace_registry.domain.rollout import compare, register, version_of
from tailrace_registry.testing import NOON, a_candidate, a_command, a_comparison, a_spec, an_alert

STAGES: tuple[Stage, ...] = get_args(Stage)
COMMANDS: tuple[Command, ...] = (
    PromoteVersion(version=2),
    RejectVersion(version=2),
    RollbackModel(),
    PauseRollout(),
    ResumeRollout(),
    TrainModel(),
)


def met(stage: Stage, *, spec: ModelSpec | None = None, continual: bool = False) -> Model:
    """A model whose version 2 is in a stage, and was champion once where one can have been. Version 1 answers, or did."""
    stages: dict[int, Stage] = {1: "retired" if stage == "champion" else "champion", 2: stage}
    versions = {
        number: version_of(a_candidate(f"run-{number}", continual=continual and number == 2), number).model_copy(
            update={"stage": each}
        )
        for number, each in stages.items()
    }
    before = (1,) if stage == "champion" else (2,) if stage in {"shadow", "rejected", "rolled-back", "retired"} else ()
    return Model("rain", spec or a_spec(), 1, versions, predecessors=before)


# ---------------------------------------------------------------- commands

COMMANDED: dict[tuple[str, Stage], tuple[Stage, str]] = {
    ("promote", "registered"): ("champion", ""),
    ("promote", "shadow"): ("champion", ""),
    ("promote", "canary"): ("champion", ""),
    ("promote", "champion"): ("champion", "version 2 of rain is the champion already"),
    ("promote", "rejected"): ("rejected", "version 2 of rain is rejected; promote it again with a reason"),
    ("promote", "rolled-back"): ("rolled-back", "version 2 of rain is rolled-back; promote it again with a reason"),
    ("promote", "retired"): ("champion", ""),
    ("reject", "registered"): ("rejected", ""),
    ("reject", "shadow"): ("rejected", ""),
    ("reject", "canary"): ("rejected", ""),
    ("reject", "champion"): ("champion", "version 2 is the champion of rain; roll it back or promote another instead"),
    ("reject", "rejected"): ("rejected", "version 2 of rain is rejected and no candidate any more"),
    ("reject", "rolled-back"): ("rolled-back", "version 2 of rain is rolled-back and no candidate any more"),
    ("reject", "retired"): ("retired", "version 2 of rain is retired and no candidate any more"),
    ("rollback", "registered"): (
        "registered",
        "there was no champion of rain before version 1 that could answer again",
    ),
    ("rollback", "shadow"): ("champion", ""),
    ("rollback", "canary"): ("canary", "there was no champion of rain before version 1 that could answer again"),
    ("rollback", "champion"): ("rolled-back", ""),
    ("rollback", "rejected"): ("rejected", "there was no champion of rain before version 1 that could answer again"),
    ("rollback", "rolled-back"): (
        "rolled-back",
        "there was no champion of rain before version 1 that could answer again",
    ),
    ("rollback", "retired"): ("champion", ""),
    **{("pause", stage): (stage, "") for stage in STAGES},
    **{("resume", stage): (stage, "promotions of rain are not paused") for stage in STAGES},
    **{("train", stage): (stage, "") for stage in STAGES},
}
"""What becomes of version 2, and why the command is refused, if it is."""


@pytest.mark.parametrize(("command", "stage"), list(product(COMMANDS, STAGES)), ids=str)
def test_every_command_meets_every_stage(command: Command, stage: Stage) -> None:
    """A command would move a version that it should not, or be refused without a reason that names what is wrong."""
    after, why = COMMANDED[command.command, stage]
    decision = obey(met(stage), a_command(command), NOON)
    assert decision.model.stage(2) == after
    assert decision.refused == bool(why)
    assert decision.reason == why or not why
    for move in decision.moves:
        assert move.before is not None
        assert move.after in LEGAL[move.before]
    assert (decision.model == met(stage)) == (bool(why) or command.command == "train")


@pytest.mark.parametrize("stage", ["rejected", "rolled-back"])
def test_a_reason_brings_back_what_was_taken_out(stage: Stage) -> None:
    """A person could not correct a decision of the evidence."""
    assert obey(met(stage), a_command(COMMANDS[0], reason="it was a bad week"), NOON).model.stage(2) == "champion"


@pytest.mark.parametrize("command", [PromoteVersion(version=3), RejectVersion(version=3)], ids=str)
@pytest.mark.parametrize("stage", STAGES)
def test_an_unknown_version_is_refused_by_number(command: Command, stage: Stage) -> None:
    """A typing error would be an error of the registry's."""
    decision = obey(met(stage), a_command(command), NOON)
    assert (decision.refused, decision.reason) == (True, "rain has no version 3; its versions are 1 to 2")


# ---------------------------------------------------------------- evidence

Verdict = Literal["better", "worse", "undecided"]
Amount = Literal["few", "enough", "overdue"]
EXAMPLES: dict[Amount, int] = {"few": 99, "enough": 100, "overdue": 1000}

COMPARED: dict[tuple[str, Verdict, Amount], tuple[Stage, Stage]] = {
    ("shadow", "better", "enough"): ("canary", "canary"),
    ("shadow", "better", "overdue"): ("canary", "canary"),
    ("shadow", "worse", "few"): ("rejected", "shadow"),
    ("shadow", "worse", "enough"): ("rejected", "shadow"),
    ("shadow", "worse", "overdue"): ("rejected", "shadow"),
    ("shadow", "undecided", "overdue"): ("rejected", "shadow"),
    ("canary", "better", "enough"): ("champion", "champion"),
    ("canary", "better", "overdue"): ("champion", "champion"),
    ("canary", "worse", "few"): ("rejected", "shadow"),
    ("canary", "worse", "enough"): ("rejected", "shadow"),
    ("canary", "worse", "overdue"): ("rejected", "shadow"),
    ("canary", "undecided", "overdue"): ("rejected", "shadow"),
}
"""Where a comparison moves a batch version, and a continual one. Whatever is not here moves nothing."""


@pytest.mark.parametrize(
    ("stage", "of_stage", "verdict", "amount"),
    list(product(STAGES, ("shadow", "canary"), get_args(Verdict), EXAMPLES)),
)
@pytest.mark.parametrize("continual", [False, True])
def test_every_comparison_meets_every_stage(
    stage: Stage, of_stage: Literal["shadow", "canary"], verdict: Verdict, amount: Amount, continual: bool
) -> None:
    """A comparison would move a version out of a stage that it says nothing about, or leave it in one that is over."""
    model = met(stage, continual=continual)
    champion = 1 if model.champion != 2 else 2
    compared = a_comparison(2, champion, verdict, stage=of_stage, examples=EXAMPLES[amount])
    batch, lifelong = COMPARED.get((stage, verdict, amount), (stage, stage)) if stage == of_stage else (stage, stage)
    decision = compare(model, compared)
    assert decision.model.stage(2) == (lifelong if continual else batch)
    assert not decision.refused
    if decision.moves:
        assert decision.evidence[0].event_id == compared.evaluation_id
    else:
        assert decision.model == model


@pytest.mark.parametrize(("stage", "verdict"), list(product(("shadow", "canary"), get_args(Verdict))))
def test_a_comparison_with_another_champion_moves_nothing(stage: Stage, verdict: Verdict) -> None:
    """Evidence about a champion that is gone would promote against the present one."""
    compared = a_comparison(2, 7, verdict, stage=stage, examples=1000)  # type: ignore[arg-type]  # one of the two
    assert compare(met(stage), compared).model == met(stage)


@pytest.mark.parametrize(("stage", "kind"), list(product(STAGES, get_args(AlertKind))))
@pytest.mark.parametrize("asked", [False, True])
def test_every_alert_meets_every_stage(stage: Stage, kind: AlertKind, asked: bool) -> None:
    """An alert on a shadow would roll the champion back, or one on the champion nobody."""
    kinds = ["performance", "errors", "latency", "fairness"]
    spec = a_spec(
        protected=["humidity"],
        monitors={"serving": {"max_p99_ms": 50}},
        rollout={"rollback_on": None if asked else [], "standby_examples": 100},
    )
    model = met(stage, spec=spec)
    if stage == "champion":
        one = model.versions[1].model_copy(update={"stage": "shadow"})
        model = Model("rain", spec, 1, {**model.versions, 1: one}, predecessors=(1,), standby=1)
    alert = an_alert("a").model_copy(update={"kind": kind, "subject": "version 2", "kept_by": (1,)})
    decision = heed(model, alert)
    returns = stage == "champion" and asked and kind in kinds
    assert decision.model.stage(2) == ("rolled-back" if returns else stage)
    assert ("batch" in decision.model.paused) == returns
    muted = heed(model, alert.model_copy(update={"muted_by": "ada"}))
    assert muted.model == model


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("continual", [False, True])
def test_every_stage_meets_a_newer_candidate(stage: Stage, continual: bool) -> None:
    """A newer candidate would throw out a canary, or leave an older one of its kind waiting beside it for ever."""
    model = met(stage, continual=continual)
    decision = register(model, a_candidate("new", continual=continual), model.spec)
    assert decision.model.stage(2) == ("retired" if stage == "shadow" else stage)
    assert decision.model.stage(3) == "shadow"


def test_what_acts_is_what_can_leave_its_stage_without_a_person() -> None:
    """Versions that evidence can move would not be read for a decision."""
    assert {stage for stage in STAGES if LEGAL[stage] - {"champion"}} == ACTING
