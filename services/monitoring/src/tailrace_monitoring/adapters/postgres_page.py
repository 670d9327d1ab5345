"""The read model in PostgreSQL: the notebook that copies what others announce, and the pages that the console shows.

A page is read in one transaction of one moment. All of its queries are by model and bounded (40 alerts, trainings and audit
entries, 24 windows), so that a console that asks every second costs little.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tailrace_contracts.events import (
    AuditRecorded,
    CoverageMeasured,
    DeploymentChanged,
    Event,
    MutesChanged,
    SpecApplied,
    TrainingProgressed,
    VersionChanged,
)
from tailrace_contracts.ranges import Log
from tailrace_monitoring.domain.page import model_page, model_summary
from tailrace_runtime.database import Database

_SUMMARIES = """
    select s.model, s.event as spec, d.event as deployment, w.state -> 'examples' as examples, c.event as served,
           (select count(*) from alerts a where a.model = s.model) as alerts
    from facts s
    left join facts d on d.topic = 'deployments' and d.key = s.key
    left join watches w on w.model = s.model
    left join (select model, to_jsonb(scores) as event from scores where name = 'served') c on c.model = s.model
    where s.topic = 'model-specs'
"""

_QUERIES = {
    "scores": "select * from scores where model = $1 order by version nulls first",
    "versions": "select event from facts where topic = 'model-versions' and model = $1",
    "comparisons": "select event from comparisons where model = $1",
    "cohorts": (
        "select start, arm, version, closed, examples, accuracy, metrics from cohorts"
        " where model = $1 and examples >= 10 order by start desc limit 600"
    ),
    "groups": (
        "select body from cohorts where model = $1 and arm in ('champion', 'external') "
        " and (body -> 'groups' <> '{}' or body -> 'group_errors' <> '{}')"
        " order by closed desc, start desc, examples desc limit 1"
    ),
    "window": "select * from windows where model = $1 order by window_start desc limit 1",
    "distances": (
        "select window_start, name, statistic, distance, threshold, drifted from distances where model = $1 and window_start >="
        " coalesce((select window_start from distances where model = $1 group by window_start"
        " order by window_start desc offset 23 limit 1), '-infinity') order by window_start"
    ),
    "estimates": "select event from estimates where model = $1 order by start desc, arm, version limit 24",
    "alerts": "select event from alerts where model = $1 order by time desc, alert_id desc limit 40",
    "mutes": "select event from facts where topic = 'alert-mutes' and model = $1",
    "requests": "select event from requests where model = $1 order by time desc limit 40",
    "progress": (
        "select event from facts where topic = 'training-progressed' and model = $1 order by \"offset\" desc limit 40"
    ),
    "coverage": (
        "select event from facts where topic = 'label-coverage' and model = $1"
        " order by (event #>> '{window,start}')::timestamptz desc limit 240"
    ),
    "audit": ("select event from facts where topic = 'audit-entries' and model = $1 order by \"offset\" desc limit 40"),
}


class PostgresNotebook:
    """Facts of others, the newest of each key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self, log: Log, facts: Sequence[tuple[int, Event]]) -> None:
        """Keep these facts; an older one never replaces a newer one."""
        rows = [
            (log.topic, key, getattr(event, "model", ""), log.partition, offset, event.model_dump_json())
            for offset, event in facts
            if (key := key_of(event)) is not None
        ]
        async with self._database.transaction() as connection:
            await connection.executemany(
                'insert into facts (topic, key, model, partition, "offset", event) values ($1, $2, $3, $4, $5, $6)'
                " on conflict (topic, key) do update set partition = excluded.partition,"
                ' "offset" = excluded."offset", event = excluded.event where facts."offset" < excluded."offset"',
                rows,
            )


def key_of(event: Event) -> str | None:
    """What an announcement is about: a later one with the same key replaces it. None: not kept."""
    match event:
        case SpecApplied() | DeploymentChanged() | MutesChanged():
            return event.model
        case VersionChanged():
            return f"{event.model}/{event.version}"
        case TrainingProgressed():
            return event.run_id
        case AuditRecorded():
            return str(event.sequence)
        case CoverageMeasured():
            return f"{event.model}/{event.window.start.isoformat()}/{event.partition}"
        case _:
            return None


class PostgresPage:
    """The console's pages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def models(self) -> list[dict[str, Any]]:
        """Every model, in short."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(f"{_SUMMARIES} order by s.model")
        return [model_summary(_plain(row)) for row in rows]

    async def model(self, name: str) -> dict[str, Any] | None:
        """One model, whole."""
        async with self._database.transaction() as connection:
            await connection.execute("set transaction isolation level repeatable read read only")
            row = await connection.fetchrow(f"{_SUMMARIES} and s.model = $1", name)
            if row is None:
                return None
            found = {part: await connection.fetch(query, name) for part, query in _QUERIES.items()}
        return model_page(_plain(row), {part: [_plain(each) for each in rows] for part, rows in found.items()})


_JSON = {"spec", "deployment", "served", "event", "body", "columns", "slices", "examples", "metrics"}


def _plain(row: Any) -> dict[str, Any]:
    """A row as JSON would have it."""
    return {name: _value(name, value) for name, value in row.items()}


def _value(name: str, value: Any) -> Any:
    if isinstance(value, str) and name in _JSON:
        return json.loads(value)
    return value.isoformat() if isinstance(value, datetime) else value
