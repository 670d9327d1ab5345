"""Books in memory, which pass the same tests as those in PostgreSQL, and makers of the events that a registry reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from tailrace_contracts.audit import Link, Verification, digest_of, end_of, verify_chain
from tailrace_contracts.events import (
    AlertRaised,
    ArmsCompared,
    AuditRecorded,
    CandidateTrained,
    ClaimCheck,
    Command,
    CommandIssued,
    DeploymentChanged,
    Event,
    Lineage,
    RevisionTrained,
    SpecApplied,
    VersionChanged,
)
from tailrace_contracts.ranges import Log, LogRange, LogRanges
from tailrace_contracts.spec import ModelSpec, parse_spec
from tailrace_registry.command_routes import Desk
from tailrace_registry.domain.model import ACTING, LEGAL, Model
from tailrace_registry.domain.noted import EvidenceName, unfaithful, vouched
from tailrace_registry.domain.rollback import is_about
from tailrace_registry.ports import Entry, Evidenced, Which
from tailrace_runtime.errors import RetryLater
from tailrace_runtime.records import Record
from tailrace_runtime.testing import FixedClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

EXAMPLES = LogRanges.of(LogRange(topic="labelled-examples", partition=0, from_offset=0, through_offset=499))


@dataclass(slots=True)
class _Pages:
    """Everything that the books hold."""

    models: dict[str, Model] = field(default_factory=dict)
    revisions: dict[tuple[str, str], RevisionTrained] = field(default_factory=dict)
    evidence: dict[tuple[str, str, str], Evidenced] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    applied: dict[Log, tuple[int, int]] = field(default_factory=dict)

    def of(self, kind: type[Event]) -> list[Any]:
        """The published events of a class."""
        return [event for event in self.events if isinstance(event, kind)]


def _with_few(model: Model, kept: Sequence[int] = ()) -> Model:
    """The model with the versions that act and these."""
    versions = {n: each for n, each in model.versions.items() if each.stage in ACTING or n in kept}
    return replace(model, versions=versions, misfits=model.misfits & versions.keys(), counted=model.newest)


class MemoryEntry:
    """One transaction in memory."""

    def __init__(self, pages: _Pages) -> None:
        self._pages = pages

    async def model(self, name: str, named: Sequence[int] = ()) -> Model | None:
        """The model, with no more versions than a decision may need."""
        known = self._pages.models.get(name)
        return _with_few(known, (*known.predecessors, *named)) if known else None

    async def found(self, name: str) -> None:
        """Nothing to make room for."""
        del name

    async def spec(self, model: str, revision: int) -> ModelSpec | None:
        """A revision of the model's spec."""
        specs: list[SpecApplied] = self._pages.of(SpecApplied)
        return next((e.spec for e in specs if (e.model, e.spec_revision) == (model, revision)), None)

    async def newest_revision(self, model: str, run_id: str) -> RevisionTrained | None:
        """The newest revision heard of a run."""
        return self._pages.revisions.get((model, run_id))

    async def answered(self, command_id: str) -> bool:
        """Whether the command has its audit entry."""
        return any(entry.command_id == command_id for entry in self._pages.of(AuditRecorded))

    async def has_evidence(self, model: str, kind: str, event_id: str) -> bool:
        """Whether the event was noted before."""
        return (model, kind, event_id) in self._pages.evidence

    async def alerts(self, model: str, versions: Sequence[int]) -> list[AlertRaised]:
        """The noted alerts about these versions."""
        noted = [line.event for (name, _, _), line in self._pages.evidence.items() if name == model]
        return [e for e in noted if isinstance(e, AlertRaised) and any(is_about(e, number) for number in versions)]

    async def head(self) -> Link:
        """The end of the audit chain."""
        entries: list[AuditRecorded] = self._pages.of(AuditRecorded)
        return end_of(entries[-1]) if entries else Link()

    async def save(self, model: Model, events: Sequence[Event]) -> None:
        """The model and its events."""
        before = self._pages.models.get(model.name)
        if before is not None:
            versions = {**before.versions, **model.versions}
            model = replace(model, versions=versions, misfits=model.misfits | before.misfits)
        self._pages.models[model.name] = model
        await self.publish(events)

    async def publish(self, events: Sequence[Event]) -> None:
        """The events."""
        self._pages.events.extend(events)
        for event in events:
            if isinstance(event, VersionChanged):
                model = self._pages.models[event.model]
                versions = {**model.versions, event.version: event}
                self._pages.models[event.model] = replace(model, versions=versions)

    async def note(self, model: str, kind: str, event_id: str, event: Event) -> None:
        """Evidence, once."""
        line = Evidenced(kind, event_id, getattr(event, "time", NOON), event)
        self._pages.evidence.setdefault((model, kind, event_id), line)

    async def newer(self, revision: RevisionTrained) -> bool:
        """The revision as the newest of its run."""
        known = self._pages.revisions.get((revision.model, revision.run_id))
        if known is not None and known.revision >= revision.revision:
            return False
        self._pages.revisions[revision.model, revision.run_id] = revision
        return True

    async def version_of_run(self, model: str, run_id: str) -> VersionChanged | None:
        """The version that a run made."""
        known = self._pages.models.get(model)
        versions = known.versions.values() if known else ()
        return next((version for version in versions if version.run_id == run_id), None)


class MemoryBooks:
    """Books and shelf in memory. `published` is what would be on the topics."""

    def __init__(self) -> None:
        self._pages = _Pages()

    @property
    def published(self) -> list[Event]:
        """Every event in the order of its publication."""
        return list(self._pages.events)

    @asynccontextmanager
    async def entry(self, record: Record) -> AsyncIterator[Entry | None]:
        """A copy of the pages, which replaces them when the block ends well."""
        offset, timestamp_ms = self._pages.applied.get(record.log, (-1, -1))
        if record.offset <= offset and record.timestamp_ms <= timestamp_ms:
            yield None
            return
        pages = deepcopy(self._pages)
        yield MemoryEntry(pages)
        pages.applied[record.log] = record.offset, record.timestamp_ms
        self._pages = pages

    async def models(self) -> list[Model]:
        """Every model, by name."""
        return [_with_few(self._pages.models[name]) for name in sorted(self._pages.models)]

    async def model(self, name: str) -> Model | None:
        """One model."""
        known = self._pages.models.get(name)
        return _with_few(known) if known else None

    async def knows(self, name: str) -> bool:
        """Whether there is such a model."""
        return name in self._pages.models

    async def versions(self, model: str, which: Which) -> list[VersionChanged]:
        """Versions, newest first."""
        known = self._pages.models[model].versions if model in self._pages.models else {}
        found = [
            then
            for number, version in sorted(known.items(), reverse=True)
            if (which.before is None or number < which.before)
            and (which.saw is None or which.saw in version.lineage.trained_on)
            and (then := self._then(version, which.as_of)) is not None
        ]
        return found[: which.limit]

    def _then(self, version: VersionChanged, as_of: datetime | None) -> VersionChanged | None:
        if as_of is None:
            return version
        entries: list[AuditRecorded] = self._pages.of(AuditRecorded)
        name = (version.model, f"version {version.version}")
        moves = [e for e in entries if (e.model, e.subject) == name and e.action in LEGAL and e.time <= as_of]
        last = {"stage": moves[-1].action, "time": moves[-1].time, "gates": ()} if moves else {}
        return version.model_copy(update=last) if moves else None

    async def compared(self, model: str, a: int, b: int) -> list[ArmsCompared]:
        """Comparisons of two versions, oldest first."""
        found = [line.event for (name, _, _), line in self._pages.evidence.items() if name == model]
        return [e for e in found if isinstance(e, ArmsCompared) and {e.candidate, e.champion} == {a, b}]

    async def specs(self, model: str) -> list[SpecApplied]:
        """Every revision of the model's spec, oldest first."""
        return [event for event in self._pages.of(SpecApplied) if event.model == model]

    async def deployments(self, model: str, as_of: datetime | None, limit: int) -> list[DeploymentChanged]:
        """Deployments announced until a moment, newest first."""
        found = [e for e in self._pages.of(DeploymentChanged) if e.model == model and (not as_of or e.time <= as_of)]
        return found[::-1][:limit]

    async def evidence(self, model: str, limit: int) -> list[Evidenced]:
        """Evidence, newest first."""
        found = [line for (name, _, _), line in self._pages.evidence.items() if name == model]
        return sorted(found, key=lambda line: line.said_at, reverse=True)[:limit]

    async def audit(self, model: str, subject: str | None, after: int, limit: int) -> list[AuditRecorded]:
        """Audit entries of a model, oldest first."""
        entries: list[AuditRecorded] = self._pages.of(AuditRecorded)
        return [e for e in entries if e.model == model and e.sequence > after and subject in {None, e.subject}][:limit]

    async def answer(self, command_id: str) -> AuditRecorded | None:
        """The audit entry that answers a command."""
        entries: list[AuditRecorded] = self._pages.of(AuditRecorded)
        return next((entry for entry in entries if entry.command_id == command_id), None)

    async def verify(self) -> Verification:
        """Check the chain and the evidence."""
        entries: list[AuditRecorded] = self._pages.of(AuditRecorded)
        found = verify_chain(entry.encode() for entry in entries)
        kept = {EvidenceName(*name): digest_of(line.event) for name, line in self._pages.evidence.items()}
        for entry in entries if found.intact else ():
            if fault := unfaithful(dict(vouched(entry)), kept):
                return found._replace(broken_at=entry.sequence, reason=fault)
        return found


class FakeCommands:
    """Keeps commands instead of sending them; can be away."""

    def __init__(self) -> None:
        self.issued: list[CommandIssued] = []
        self.away = False

    async def issue(self, issued: CommandIssued) -> None:
        """Keep it. Raises RetryLater while away."""
        if self.away:
            raise RetryLater("the broker has not taken the command (it is away)")
        self.issued.append(issued)


class FixedKeyring:
    """Names by token."""

    def __init__(self, **tokens: str) -> None:
        self._names = {token: name for name, token in tokens.items()}

    def name_of(self, token: str) -> str | None:
        """Whose token it is."""
        return self._names.get(token)


def a_desk(keyring: FixedKeyring | None = None, commands: FakeCommands | None = None) -> Desk:
    """What takes commands over HTTP; without a keyring it takes none."""
    return Desk(commands or FakeCommands(), FixedClock(NOON), keyring)


def a_spec(model: str = "rain", **parts: Any) -> ModelSpec:
    """A spec with two features, both learners, and a rollout that asks for 100 examples in each stage."""
    document: dict[str, Any] = {
        "model": model,
        "owner": "weather-team",
        "features": [{"name": "pressure", "type": "numerical"}, {"name": "humidity", "type": "numerical"}],
        "label": {"name": "rain"},
        "learners": {"batch": {}, "online": {}},
        "rollout": {
            "shadow_min_examples": 100,
            "canary_min_examples": 100,
            "max_examples": 1000,
            "standby_examples": 0,
        },
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
