"""Rows to models and events to rows: the mapping between the tables of `migrations/` and what the domain speaks of.

What is stored is the event as it is published, so the books can never say anything else than the topics did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tailrace_contracts.catalogue import topics
from tailrace_contracts.events import (
    AuditRecorded,
    DeploymentChanged,
    Event,
    MutesChanged,
    SpecApplied,
    VersionChanged,
    decode,
)
from tailrace_registry.domain.model import Model
from tailrace_runtime.records import Outgoing, outgoing

Row = Mapping[str, Any]

MODELS = """
select m.name, m.spec_revision, m.predecessors, s.event as spec, d.event as deployment, q.event as muting
from models m
join specs s on s.model = m.name and s.revision = m.spec_revision
left join lateral (
    select event from deployments where model = m.name order by sequence desc limit 1
) d on true
left join lateral (
    select event from mutes where model = m.name order by sequence desc limit 1
) q on true
"""

VERSIONS = "select model, version, fits, event from versions"


def event_of(kind: type[Event], text: str) -> Any:
    """The stored event, as its class."""
    return kind.model_validate_json(text)


def any_event(text: str) -> Event:
    """The stored event, whichever it is."""
    return decode(text.encode())


def model_of(row: Row, versions: Iterable[Row]) -> Model:
    """A model out of its row and those of its versions."""
    spec: SpecApplied = event_of(SpecApplied, row["spec"])
    versions = list(versions)
    deployment: DeploymentChanged | None = event_of(DeploymentChanged, row["deployment"]) if row["deployment"] else None
    return Model(
        name=row["name"],
        spec=spec.spec,
        spec_revision=row["spec_revision"],
        versions={each["version"]: event_of(VersionChanged, each["event"]) for each in versions},
        misfits=frozenset(each["version"] for each in versions if not each["fits"]),
        predecessors=tuple(row["predecessors"]),
        deployment=deployment,
        standby=deployment.standby if deployment else None,
        paused=deployment.paused if deployment else {},
        muting=event_of(MutesChanged, row["muting"]) if row["muting"] else None,
    )


class Statement(NamedTuple):
    """SQL and its arguments."""

    sql: str
    arguments: tuple[Any, ...]


def _spec(event: SpecApplied) -> Statement:
    sql = "insert into specs (model, revision, event, applied_at) values ($1, $2, $3, $4)"
    return Statement(sql, (event.model, event.spec_revision, event.model_dump_json(), event.time))


def _version(event: VersionChanged, *, fits: bool) -> Statement:
    sql = """
        insert into versions (model, version, run_id, stage, fits, event) values ($1, $2, $3, $4, $5, $6)
        on conflict (model, version) do update set stage = excluded.stage, event = excluded.event
    """
    arguments = (event.model, event.version, event.run_id, event.stage, fits, event.model_dump_json())
    return Statement(sql, arguments)


def _deployment(event: DeploymentChanged) -> Statement:
    sql = "insert into deployments (model, sequence, event, announced_at) values ($1, $2, $3, $4)"
    return Statement(sql, (event.model, event.sequence, event.model_dump_json(), event.time))


def _mutes(event: MutesChanged) -> Statement:
    sql = "insert into mutes (model, sequence, event, announced_at) values ($1, $2, $3, $4)"
    return Statement(sql, (event.model, event.sequence, event.model_dump_json(), event.time))


def _audit(event: AuditRecorded) -> Statement:
    sql = "insert into audit (sequence, model, command_id, entry) values ($1, $2, $3, $4)"
    return Statement(sql, (event.sequence, event.model, event.command_id, event.model_dump_json()))


def statements(events: Sequence[Event], misfits: frozenset[int]) -> list[Statement]:
    """What stores these events. Versions that step down come first: no two may be in one role, not even for a moment."""
    versions = [event for event in events if isinstance(event, VersionChanged)]
    versions.sort(key=lambda event: event.stage in {"canary", "champion"})
    done = [_version(event, fits=event.version not in misfits) for event in versions]
    stored: dict[type[Event], Callable[[Any], Statement]] = {
        SpecApplied: _spec,
        DeploymentChanged: _deployment,
        MutesChanged: _mutes,
        AuditRecorded: _audit,
    }
    return done + [stored[type(event)](event) for event in events if type(event) in stored]


TopicsOut = Mapping[type[Event], str]
"""The topic of each event that is published."""


def topics_out(names: Iterable[str]) -> TopicsOut:
    """Which event goes to which of these topics, as the catalogue says."""
    return {event: name for name in names for event in topics()[name].event_types}


def published(event: Event, out: TopicsOut) -> Outgoing:
    """The record that announces an event. A version's key names the version too, so that compaction keeps each."""
    model = str(getattr(event, "model", ""))
    key = f"{model}|{event.version}" if isinstance(event, VersionChanged) else model
    return outgoing(event, out[type(event)], key)


def chain_end(events: Sequence[Event]) -> AuditRecorded | None:
    """The last audit entry among the events."""
    entries = [event for event in events if isinstance(event, AuditRecorded)]
    return entries[-1] if entries else None
