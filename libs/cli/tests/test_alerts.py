"""Alerts and mutes on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tailrace_cli.alerts import Told, alert_document, kinds_of, mute_row, until_of
from tailrace_cli.commands.alerts import mute_alerts
from tailrace_cli.connection import CommandError
from tailrace_contracts.events import (
    AlertRaised,
    ClaimCheck,
    Event,
    Lineage,
    Mute,
    MutesChanged,
    TrainingProgressed,
    TrainingRequested,
    VersionChanged,
)
from tailrace_contracts.ranges import LogRanges
from tailrace_runtime.testing import record

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def alert(**changes: Any) -> AlertRaised:
    """The champion's errors rose, which led to the run `r`."""
    fields: dict[str, Any] = {
        "alert_id": "a",
        "model": "rain",
        "kind": "concept-drift",
        "subject": "version 1",
        "statistic": "error rate",
        "value": 0.4,
        "threshold": 0.001,
        "since": NOW,
        "message": "the error rate of version 1 rose",
        "led_to": "r",
        "derived_from": LogRanges(),
        "time": NOW,
    }
    return AlertRaised(**{**fields, **changes})


def told(*events: Event) -> Told:
    """What stands on the topics."""
    heard = Told()
    for event in events:
        heard.hear(event, record(event, "any"))
    return heard


def version(stage: Any) -> VersionChanged:
    """The version that the run `r` made."""
    claim = ClaimCheck(key=f"sha256/{'0' * 64}", sha256="0" * 64, size_bytes=1, media_type="text/plain")
    lineage = Lineage(trained_on=LogRanges(), examples=1, spec_revision=1, code_version="1")
    return VersionChanged(
        model="rain",
        version=3,
        stage=stage,
        run_id="r",
        learner="torch",
        continual=False,
        artefact=claim,
        lineage=lineage,
        time=NOW,
    )


def test_what_an_alert_led_to_goes_on_after_it_was_raised() -> None:
    """A person would see that a training was asked for, and not that its version serves by now."""
    requested = TrainingRequested(run_id="r", model="rain", spec_revision=1, reason="x", requested_by="x", time=NOW)
    finished = TrainingProgressed(run_id="r", model="rain", stage="finished", time=NOW)
    steps: list[Event] = [requested, finished, version("shadow"), version("champion")]
    stories = [told(*steps[:count]).led_to(alert()) for count in range(5)]
    assert stories == [
        "training awaited",
        "training requested",
        "training finished",
        "version 3 (shadow)",
        "version 3 (champion)",
    ]
    assert told().led_to(alert(led_to="")) == ""
    document = alert_document(alert(), told(*steps))
    assert (document["version"], document["version_stage"], document["alert_id"]) == (3, "champion", "a")


def mute(**changes: Any) -> Mute:
    """Feature drift of the pressure, muted for a week."""
    fields: dict[str, Any] = {
        "mute_id": "m",
        "kinds": ("feature-drift",),
        "subjects": ("press*",),
        "owner": "ada",
        "reason": "the sensor is being replaced",
        "muted_by": "ada",
        "since": NOW,
        "until": NOW + timedelta(days=7),
    }
    return Mute(**{**fields, **changes})


def test_mutes_are_listed_until_they_end() -> None:
    """The list would show mutes of last year, or those of another model."""
    heard = told(
        MutesChanged(model="rain", sequence=1, mutes=(mute(), mute(mute_id="short", until=NOW)), time=NOW),
        MutesChanged(model="snow", sequence=1, mutes=(mute(mute_id="other", kinds=(), subjects=()),), time=NOW),
    )
    assert [(name, each.mute_id) for name, each in heard.mutes(None, NOW)] == [("rain", "m"), ("snow", "other")]
    assert [each.mute_id for _, each in heard.mutes("rain", NOW)] == ["m"]
    assert list(heard.mutes(None, NOW + timedelta(days=8))) == []
    row = mute_row("snow", mute(kinds=(), subjects=()))
    assert (row["kinds"], row["subjects"], row["until"]) == ("every kind", "everything", "2026-05-11 12:00")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("12h", NOW + timedelta(hours=12)),
        ("7d", NOW + timedelta(days=7)),
        ("2w", NOW + timedelta(days=14)),
        ("2026-12-01", datetime(2026, 12, 1, tzinfo=UTC)),
        ("2026-12-01T08:00Z", datetime(2026, 12, 1, 8, tzinfo=UTC)),
        ("2026-12-01T08:00+02:00", datetime(2026, 12, 1, 6, tzinfo=UTC)),
    ],
)
def test_an_end_can_be_said_in_three_ways(text: str, moment: datetime) -> None:
    """A mute would end at another time than the person meant."""
    assert until_of(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "soon", "7", "7m", "2026-13-01"])
def test_an_end_that_is_none_is_refused_in_one_sentence(text: str) -> None:
    """A typing error would end in a traceback, or in a mute for ever."""
    with pytest.raises(CommandError, match=r"^--until: expected a day .* found '"):
        until_of(text, NOW)


def test_wrong_and_missing_choices_are_refused_in_one_sentence() -> None:
    """A typing error would mute everything, or nothing."""
    with pytest.raises(CommandError, match="there are no drift alerts; the kinds are feature-drift, concept-drift"):
        kinds_of(["fairness", "drift"])
    assert kinds_of(["fairness", "concept-drift"]) == ("concept-drift", "fairness")
    for chosen in ({}, {"kind": ["fairness"], "everything": True}):
        with pytest.raises(CommandError, match="say which alerts with --kind or --subject"):
            mute_alerts("rain", until="7d", reason="x", **chosen)  # type: ignore[arg-type]  # options of two types
