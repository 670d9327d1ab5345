"""Makers of the events that a registry reads, short enough for a test to say only what matters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from tailrace_contracts.events import (
    AlertRaised,
    ArmsCompared,
    CandidateTrained,
    ClaimCheck,
    Command,
    CommandIssued,
    Lineage,
    RevisionTrained,
)
from tailrace_contracts.ranges import LogRange, LogRanges
from tailrace_contracts.spec import ModelSpec, parse_spec

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

EXAMPLES = LogRanges.of(LogRange(topic="labelled-examples", partition=0, from_offset=0, through_offset=499))


def a_spec(model: str = "rain", **parts: Any) -> ModelSpec:
    """A spec with two features, both learners, and a rollout that asks for 100 examples in each stage."""
    document: dict[str, Any] = {
        "model": model,
        "owner": "weather-team",
        "features": [{"name": "pressure", "type": "numerical"}, {"name": "humidity", "type": "numerical"}],
        "label": {"name": "rain"},
        "learners": {"batch": {}, "online": {}},
        "rollout": {"shadow_min_examples": 100, "canary_min_examples": 100, "max_examples": 1000},
    }
    return parse_spec({**document, **parts})


def a_claim(content: str = "artefact", media_type: str = "application/vnd.onnx") -> ClaimCheck:
    """A claim check as an artefact store gives it; the content only makes it differ from others."""
    digest = content.encode().hex().ljust(64, "0")[:64]
    return ClaimCheck(key=f"sha256/{digest}", sha256=digest, size_bytes=len(content), media_type=media_type)


def a_candidate(
    run_id: str, *, model: str = "rain", continual: bool = False, spec_revision: int = 1
) -> CandidateTrained:
    """A batch candidate, or a continual one."""
    return CandidateTrained(
        run_id=run_id,
        model=model,
        learner="river" if continual else "torch",
        continual=continual,
        artefact=a_claim(run_id),
        lineage=Lineage(trained_on=EXAMPLES, examples=500, spec_revision=spec_revision, code_version="0.1.0"),
        metrics={"accuracy": 0.8},
        time=NOON,
    )


def a_revision(run_id: str, revision: int, *, model: str = "rain") -> RevisionTrained:
    """The next state of a continual version."""
    return RevisionTrained(
        run_id=run_id,
        model=model,
        revision=revision,
        artefact=a_claim(f"{run_id}.{revision}"),
        trained_on=EXAMPLES,
        examples=500 + revision,
        time=NOON,
    )


def a_comparison(
    candidate: int,
    champion: int,
    verdict: Literal["better", "worse", "undecided"],
    *,
    stage: Literal["shadow", "canary"] = "shadow",
    examples: int = 200,
    evaluation_id: str = "",
    model: str = "rain",
) -> ArmsCompared:
    """Monitoring's word on two arms."""
    sign = {"better": 1, "worse": -1, "undecided": 0}[verdict]
    return ArmsCompared(
        evaluation_id=evaluation_id or f"{model}-{candidate}-{champion}-{stage}-{verdict}-{examples}",
        model=model,
        champion=champion,
        candidate=candidate,
        stage=stage,
        examples=examples,
        stage_examples=examples,
        champion_accuracy=0.78,
        candidate_accuracy=0.78 + 0.04 * sign,
        mean_difference=0.04 * sign,
        lower=0.04 * sign - 0.03,
        upper=0.04 * sign + 0.03,
        verdict=verdict,
        derived_from=EXAMPLES,
        time=NOON,
    )


def an_alert(alert_id: str, *, model: str = "rain") -> AlertRaised:
    """Monitoring found that the champion's errors moved."""
    return AlertRaised(
        alert_id=alert_id,
        model=model,
        kind="concept-drift",
        subject="version 1",
        statistic="adwin",
        value=0.31,
        threshold=0.0005,
        since=NOON,
        message="the error rate of version 1 moved",
        derived_from=EXAMPLES,
        time=NOON,
    )


def a_command(command: Command, *, command_id: str = "c-1", model: str = "rain", reason: str = "") -> CommandIssued:
    """Ada asks for something."""
    return CommandIssued(command_id=command_id, model=model, command=command, issued_by="ada", reason=reason, time=NOON)
