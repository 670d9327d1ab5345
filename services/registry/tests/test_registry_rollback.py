"""Which alerts on a new champion return traffic to the last good version, and which return nobody."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tailrace_contracts.audit import Link, digest_of
from tailrace_contracts.events import AlertKind, AlertRaised, DeploymentChanged, PromoteVersion, RollbackModel, Stage
from tailrace_registry.domain.commands import obey
from tailrace_registry.domain.facts import announce
from tailrace_registry.domain.model import Decision, Model
from tailrace_registry.domain.rollback import heed, last_good, version_before
from tailrace_registry.domain.rollout import version_of
from tailrace_registry.testing import NOON, a_candidate, a_command, a_spec, an_alert


def champions(*stages: Stage, standby: int | None = None, standby_examples: int = 500, **rollout: Any) -> Model:
    """Versions 1, 2, … in these stages; the last one is champion, and those before were."""
    spec = a_spec(
        protected=["humidity"],
        monitors={"serving": {"max_p99_ms": 50}},
        rollout={"standby_examples": standby_examples, **rollout},
    )
    versions = {
        number: version_of(a_candidate(f"run-{number}"), number).model_copy(update={"stage": stage})
        for number, stage in enumerate(stages, 1)
    }
    before = tuple(number for number in versions if number < len(stages))
    return Model("rain", spec, 1, versions, predecessors=before, standby=standby)


def alert(kind: AlertKind = "errors", version: int = 2, **changes: Any) -> AlertRaised:
    """An alert on a version."""
    return an_alert(f"{kind}-{version}").model_copy(
        update={"kind": kind, "subject": f"version {version}", "version": version, **changes}
    )


def stages(decision: Decision) -> list[str | None]:
    """Where the versions are after a decision."""
    return [decision.model.stage(number) for number in sorted(decision.model.versions)]


WATCHED, ALONE = champions("shadow", "champion", standby=1), champions("retired", "champion")


@pytest.mark.parametrize("kind", ["performance", "errors", "latency", "fairness"])
def test_an_alert_on_a_new_champion_returns_the_one_that_stands_by(kind: AlertKind) -> None:
    """Traffic would stay with a bad champion unless somebody had thought of it in the spec."""
    found = alert(kind, kept_by=(1,))
    decision = heed(WATCHED, found)
    assert stages(decision) == ["champion", "rolled-back"]
    assert list(decision.model.paused) == ["batch"]
    assert [(each.event_id, each.sha256) for each in decision.evidence] == [(found.alert_id, digest_of(found))]


def test_an_alert_about_groups_of_the_champion_counts() -> None:
    """An alert whose subject is an attribute would not be known for one on the champion."""
    found = alert("fairness", subject="region", kept_by=(1,))
    assert stages(heed(WATCHED, found)) == ["champion", "rolled-back"]


@pytest.mark.parametrize("kind", ["errors", "latency"])
def test_what_a_version_does_by_itself_returns_the_last_good_one_at_any_time(kind: AlertKind) -> None:
    """A champion that begins to fail after it has held its place would fail until a person wakes up."""
    assert stages(heed(ALONE, alert(kind))) == ["champion", "rolled-back"]
    passed_over = champions("retired", "rolled-back", "champion")
    assert stages(heed(passed_over, alert(kind, 3))) == ["champion", "rolled-back", "rolled-back"]
    assert last_good(passed_over) == version_before(passed_over) == 1


@pytest.mark.parametrize("kind", ["performance", "fairness"])
def test_where_nobody_stands_by_labels_return_a_version_that_had_no_such_alert(kind: AlertKind) -> None:
    """With `standby_examples: 0` a bad promotion would stay until a person comes."""
    model = champions("retired", "champion", standby_examples=0)
    assert stages(heed(model, alert(kind))) == ["champion", "rolled-back"]
    assert stages(heed(model, alert(kind), [alert("errors", 1)])) == ["champion", "rolled-back"]


@pytest.mark.parametrize(
    ("model", "found", "told", "why"),
    [
        (WATCHED, alert("performance"), (), "version 1 stands by, and is not shown to have done better"),
        (WATCHED, alert("errors"), (alert("errors", 1),), "version 1 before it raised an alert on errors too"),
        (ALONE, alert("latency"), (alert("latency", 1),), "version 1 before it raised an alert on latency too"),
        (ALONE, alert("performance"), (), "version 2 has held its place against the versions before"),
        (
            champions("retired", "champion", standby_examples=0),
            alert("performance"),
            (alert("concept-drift", 2),),
            "the errors of version 2 rose while it was champion",
        ),
        (WATCHED, alert("performance", kept_by=(1,), estimated=True), (), "an estimate from before the labels"),
        (WATCHED, alert("concept-drift"), (), "rollout.rollback_on does not name concept-drift"),
        (champions("shadow", "champion", standby=1, rollback_on=[]), alert(), (), "does not name errors"),
        (WATCHED, alert(muted_by="ada"), (), "it is muted by ada"),
        (WATCHED, alert(version=1), (), "it is not about the champion"),
        (champions("champion"), alert(version=1), (), "there is no version before that could answer again"),
        (champions("rejected", "champion"), alert(), (), "there is no version before that could answer again"),
        (replace(ALONE, returned=True), alert(), (), "version 2 came back by a rollback itself"),
    ],
)
def test_what_is_not_about_a_bad_promotion_returns_nobody(
    model: Model, found: AlertRaised, told: tuple[AlertRaised, ...], why: str
) -> None:
    """A storm that every version suffers from would return an older version, and stop promotions until a person comes."""
    decision = heed(model, found, told)
    assert decision.model == model
    assert why in decision.reason


def deployed(decision: Decision) -> DeploymentChanged:
    """The deployment that a decision announces."""
    (told,) = (each for each in announce(decision, Link(), NOON).events if isinstance(each, DeploymentChanged))
    return told


def test_an_alert_of_an_earlier_reign_returns_nobody() -> None:
    """A version that a person promoted again would be rolled back by what was known before."""
    first = deployed(Decision(WATCHED))
    assert (first.sequence, first.reign, first.returned) == (1, 1, False)
    model = replace(WATCHED, deployment=first)
    back = obey(model, a_command(RollbackModel()), NOON)
    second = deployed(back)
    assert (second.sequence, second.reign, second.returned) == (2, 2, True)
    again = obey(replace(back.model, deployment=second), a_command(PromoteVersion(version=2), reason="looked at"), NOON)
    third = deployed(again)
    assert (third.reign, third.returned) == (3, False)
    model = replace(again.model, deployment=third)
    assert "an earlier reign of version 2" in heed(model, alert(deployment=1)).reason
    assert heed(model, alert(deployment=3)).model.champion == 1
    assert heed(model, alert(deployment=None)).model.champion == 1
