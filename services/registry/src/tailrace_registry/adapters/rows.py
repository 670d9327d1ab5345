"""Rows to models and events to rows: the mapping between the tables of `migrations/` and what the domain speaks of.

What is stored is the event as it is published, so the books can never say anything else than the topics did.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tailrace_contracts.catalogue import topics
from tailrace_contracts.events import (
    AuditRecorded,
    BooksWritten,
    DeploymentChanged,
    Event,
    MutesChanged,
    RevisionTrained,
    SpecApplied,
    VersionChanged,
    decode,
)
from tailrace_registry.domain.model import LEGAL, Model
from tailrace_runtime.records import Outgoing, event_headers

Row = Mapping[str, Any]

MODELS = """
select m.name, m.spec_revision, m.predecessors[cardinality(m.predecessors) - 49 :] as predecessors,
    coalesce((select max(version) from versions where model = m.name), 0) as counted, s.event as spec, d.event as deployment, q.event as muting
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

ACTING = "stage in ('registered', 'shadow', 'canary', 'champion')"
"""The versions that facts can still move; as the index on them has it."""


VERSIONS_NOW = """
select event from versions
where model = $1 and ($2::integer is null or version < $2) and ($4::integer[] is null or version = any($4))
order by version desc limit $3
"""

VERSIONS_THAT_SAW = """
with likely as materialized (
    select version, event from versions where model = $1 and offsets_learned(event) @> $2::bigint
)
select version from likely where learned_from(event, $3) order by version desc
"""

VERSIONS_THEN = """
select v.event, m.stage, m.moved_at from versions v
join lateral (
    select stage, moved_at from moves
    where model = v.model and version = v.version and moved_at <= $5 order by sequence desc limit 1
) m on true
where v.model = $1 and ($2::integer is null or v.version < $2) and ($4::integer[] is null or v.version = any($4))
and v.version <= (
    select version from moves where model = $1 and stage = 'registered' and moved_at <= $5
    order by moved_at desc, version desc limit 1
)
order by v.version desc limit $3
"""
"""Versions that were registered by a moment, with the last move that each had made by then."""


def version_of_row(row: Row) -> VersionChanged:
    """A version, with the stage and the time of the move where the row says them. How its gates stood is not kept."""
    version: VersionChanged = event_of(VersionChanged, row["event"])
    if "stage" not in row.keys():  # noqa: SIM118  # a record of asyncpg looks for values otherwise
        return version
    return version.model_copy(update={"stage": row["stage"], "time": row["moved_at"], "gates": ()})


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
        returned=deployment.returned if deployment else False,
        paused=deployment.paused if deployment else {},
        aliases=deployment.aliases if deployment else {},
        counted=row["counted"],
        muting=event_of(MutesChanged, row["muting"]) if row["muting"] else None,
    )


class Statement(NamedTuple):
    """SQL and its arguments."""

    sql: str
    arguments: tuple[Any, ...]


class Written(NamedTuple):
    """An event and its JSON, which is stored as it was published: a later release might write it otherwise."""

    event: Event
    text: str


def written(event: Event) -> Written:
    """An event that is written for the first time."""
    return Written(event, event.model_dump_json())


def read_again(text: str) -> Written:
    """An event that was written before."""
    return Written(any_event(text), text)


def _spec(event: SpecApplied, text: str) -> Statement:
    sql = "insert into specs (model, revision, event, applied_at) values ($1, $2, $3, $4)"
    return Statement(sql, (event.model, event.spec_revision, text, event.time))


def _version(event: VersionChanged, text: str, *, fits: bool) -> Statement:
    sql = """
        insert into versions (model, version, run_id, stage, fits, event) values ($1, $2, $3, $4, $5, $6)
        on conflict (model, version) do update set stage = excluded.stage, event = excluded.event
    """
    return Statement(sql, (event.model, event.version, event.run_id, event.stage, fits, text))


def _deployment(event: DeploymentChanged, text: str) -> Statement:
    sql = "insert into deployments (model, sequence, event, announced_at) values ($1, $2, $3, $4)"
    return Statement(sql, (event.model, event.sequence, text, event.time))


def _mutes(event: MutesChanged, text: str) -> Statement:
    sql = "insert into mutes (model, sequence, event, announced_at) values ($1, $2, $3, $4)"
    return Statement(sql, (event.model, event.sequence, text, event.time))


def _audit(event: AuditRecorded, text: str) -> Statement:
    sql = "insert into audit (sequence, model, command_id, entry) values ($1, $2, $3, $4)"
    return Statement(sql, (event.sequence, event.model, event.command_id, text))


_STORED: Mapping[type[Event], Callable[[Any, str], Statement]] = {
    SpecApplied: _spec,
    DeploymentChanged: _deployment,
    MutesChanged: _mutes,
    AuditRecorded: _audit,
}


def statements(events: Sequence[Written], misfits: Collection[int]) -> list[Statement]:
    """What stores these events. Versions that step down come first: no two may be in one role, not even for a moment."""
    versions = [(each.event, each.text) for each in events if isinstance(each.event, VersionChanged)]
    versions.sort(key=lambda each: each[0].stage in {"canary", "champion"})
    done = [_version(event, text, fits=event.version not in misfits) for event, text in versions]
    done += [_STORED[type(event)](event, text) for event, text in events if type(event) in _STORED]
    return done + [
        _move(each.event) for each in events if isinstance(each.event, AuditRecorded) and _is_move(each.event)
    ]


def _is_move(entry: AuditRecorded) -> bool:
    return entry.action in LEGAL and entry.subject.startswith("version ")


def _move(entry: AuditRecorded) -> Statement:
    """What keeps the stage that a version went to, so that it can be asked for as of a moment."""
    sql = "insert into moves (model, version, sequence, stage, moved_at) values ($1, $2, $3, $4, $5)"
    version = int(entry.subject.removeprefix("version "))
    return Statement(sql, (entry.model, version, entry.sequence, entry.action, entry.time))


def kept(model: str, kind: str, event_id: str, each: Written) -> Statement:
    """What keeps an event that decisions rest on."""
    sql = (
        "insert into evidence (model, kind, event_id, event, said_at) values ($1, $2, $3, $4, $5)"
        " on conflict do nothing returning true"
    )
    return Statement(sql, (model, kind, event_id, each.text, getattr(each.event, "time", None)))


def newest_revision(event: RevisionTrained, text: str) -> Statement:
    """What keeps a revision, if it is the newest of its run; then it gives back true."""
    sql = """
        insert into revisions (model, run_id, revision, event) values ($1, $2, $3, $4)
        on conflict (model, run_id) do update set revision = excluded.revision, event = excluded.event
        where revisions.revision < excluded.revision
        returning true
    """
    return Statement(sql, (event.model, event.run_id, event.revision, text))


TopicsOut = Mapping[type[Event], str]
"""The topic of each event that is published."""


def topics_out(names: Iterable[str]) -> TopicsOut:
    """Which event goes to which of these topics, as the catalogue says."""
    return {event: name for name in names for event in topics()[name].event_types}


def published(each: Written, out: TopicsOut) -> Outgoing:
    """The record that announces an event. A version's key names the version too, so that compaction keeps each."""
    return Outgoing(
        out[type(each.event)], each.text.encode(), key_of(each.event).encode(), None, event_headers(each.event)
    )


def key_of(event: Event) -> str:
    """The key under which an event is published."""
    model = str(getattr(event, "model", ""))
    if isinstance(event, VersionChanged):
        return f"{model}|{event.version}"
    return key_of_change(event) if isinstance(event, BooksWritten) else model


def key_of_change(change: BooksWritten) -> str:
    """Compaction keeps every change but those revisions that a newer one of the same run has made superfluous."""
    only_revision = change.revision and change.row is None and not change.kept
    if not only_revision:
        return f"{change.number:012d}"
    return f"{change.model}|{json.loads(change.revision)['run_id']}"


def chain_end(events: Sequence[Written]) -> AuditRecorded | None:
    """The last audit entry among the events."""
    entries = [each.event for each in events if isinstance(each.event, AuditRecorded)]
    return entries[-1] if entries else None
