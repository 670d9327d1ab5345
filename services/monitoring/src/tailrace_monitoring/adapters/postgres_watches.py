"""Watches in PostgreSQL.

A sitting is one transaction that locks the model's row. The watch itself stays in memory between sittings, together
with the version of the row that it is a copy of: while this process is the only one that writes, nothing is read again;
when another one has written, the copy is thrown away and read anew. A sitting that fails throws it away too.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple

from tailrace_contracts.events import AlertRaised, ArmsCompared, Event, PerformanceEstimated, TrainingRequested
from tailrace_contracts.ranges import Log
from tailrace_monitoring.domain.cohorts import Cohort, CohortKey
from tailrace_monitoring.domain.estimation import PAST_COHORTS
from tailrace_monitoring.domain.lessons import KEPT, Lesson
from tailrace_monitoring.domain.quality import compact_columns, compact_slices
from tailrace_monitoring.domain.state import Changes, Distances, ModelState, Tools
from tailrace_monitoring.domain.trail import Step, Trail
from tailrace_monitoring.domain.watched import ModelWatch
from tailrace_monitoring.domain.windows import shown
from tailrace_runtime.database import Connection, Database
from tailrace_runtime.outbox import enqueue
from tailrace_runtime.records import outgoing

EXAMPLES = "labelled-examples"
Topics = Mapping[type[Event], str]
"""Where each event that a watch gives goes."""


class _Copy(NamedTuple):
    version: int
    watch: ModelWatch


class PostgresSitting:
    """One transaction on one model's watch."""

    def __init__(self, connection: Connection, watch: ModelWatch, topics: Topics) -> None:
        self._sql = connection
        self._topics = topics
        self.watch = watch

    async def cohorts(self, keys: Iterable[CohortKey]) -> list[Cohort]:
        """Stored cohorts, those of the keys that there are."""
        wanted = list(keys)
        if not wanted:
            return []
        rows = await self._sql.fetch(
            "select c.body from cohorts c join unnest($2::timestamptz[], $3::text[], $4::int[]) as k (start, arm, version)"
            " using (start, arm, version) where c.model = $1",
            self.watch.model,
            *([key[part] for key in wanted] for part in range(3)),
        )
        return [Cohort.model_validate_json(row["body"]) for row in rows]

    async def lessons(self, version: int) -> list[Lesson]:
        """Labelled answers of a version, newest first."""
        rows = await self._sql.fetch(
            "select body from lessons where model = $1 and version = $2 order by number desc limit $3",
            *(self.watch.model, version, KEPT),
        )
        return [Lesson.model_validate_json(row["body"]) for row in rows]

    async def labelled(self, version: int, before: datetime) -> list[Cohort]:
        """Stored cohorts of a version with labels that began before a moment, newest first."""
        rows = await self._sql.fetch(
            "select body from cohorts where model = $1 and version = $2 and start < $3 and examples > 0"
            " order by start desc limit $4",
            *(self.watch.model, version, before, PAST_COHORTS),
        )
        return [Cohort.model_validate_json(row["body"]) for row in rows]

    async def store(self, version: int) -> int:
        """Write everything that changed. Gives back the row's new version."""
        watch, changes = self.watch, self.watch.changes
        if not (changes.touched or changes.events):
            return version
        await self._store_state()
        await self._store_examples(changes.steps)
        await self._store_cohorts(changes)
        await self._store_lessons(changes.lessons)
        for each in changes.distances:
            await self._store_distances(each)
        await self._store_window(changes)
        await self._store_events(changes.events)
        await enqueue(self._sql, [outgoing(event, self._topics[type(event)], watch.model) for event in changes.events])
        return version + 1

    async def _store_state(self) -> None:
        state, model = self.watch.state, self.watch.model
        await self._sql.execute(
            "update watches set version = version + 1, state = $2 where model = $1", model, state.model_dump_json()
        )
        await self._sql.executemany(
            "insert into scores (model, name, arm, version, examples, correct, recent_accuracy, metrics)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (model, name) do update set arm = excluded.arm,"
            " examples = excluded.examples, correct = excluded.correct, recent_accuracy = excluded.recent_accuracy,"
            " metrics = excluded.metrics",
            [
                (
                    model,
                    name,
                    each.arm,
                    each.version,
                    each.examples,
                    each.correct,
                    each.recent_accuracy,
                    json.dumps(each.metrics),
                )
                for name, each in state.scores.items()
            ],
        )

    async def _store_examples(self, steps: list[Step]) -> None:
        if not steps:
            return
        model, length = self.watch.model, self.watch.trail.length
        await self._sql.execute(
            "insert into examples select $1, * from unnest($2::bigint[], $3::int[], $4::bigint[], $5::text[],"
            " $6::int[], $7::timestamptz[], $8::double precision[])",
            model,
            [step.number for step in steps],
            [step.log.partition for step in steps],
            [step.offset for step in steps],
            [step.prediction_id for step in steps],
            [step.label_revision for step in steps],
            [step.time for step in steps],
            [step.error for step in steps],
        )
        if steps[0].number // length != (steps[-1].number + 1) // length:
            await self._sql.execute(
                "delete from examples where model = $1 and number <= $2", model, steps[-1].number - length
            )

    async def _store_lessons(self, lessons: list[Lesson]) -> None:
        if not lessons:
            return
        model, newest = self.watch.model, {(each.version, each.prediction_id): each for each in lessons}
        await self._sql.executemany(
            "insert into lessons (model, version, prediction_id, number, body) values ($1, $2, $3, $4, $5)"
            " on conflict (model, version, prediction_id) do update set number = excluded.number, body = excluded.body",
            [(model, *key, each.number, each.model_dump_json()) for key, each in newest.items()],
        )
        if lessons[0].number // KEPT != (lessons[-1].number + 1) // KEPT:
            await self._sql.execute(
                "delete from lessons where model = $1 and number <= $2", model, lessons[-1].number - 2 * KEPT
            )

    async def _store_cohorts(self, changes: Changes) -> None:
        cohorts = [self.watch.cohorts[key] for key in sorted(changes.cohorts)]
        await self._sql.executemany(
            "insert into cohorts (model, start, arm, version, closed, examples, accuracy, metrics, body)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (model, start, arm, version) do update set"
            " closed = excluded.closed, examples = excluded.examples, accuracy = excluded.accuracy, metrics = excluded.metrics,"
            " body = excluded.body",
            [
                (
                    self.watch.model,
                    *each.key,
                    each.closed,
                    each.examples,
                    each.accuracy,
                    json.dumps(each.errors.metrics()),
                    each.model_dump_json(),
                )
                for each in cohorts
            ],
        )

    async def _store_distances(self, each: Distances) -> None:
        model, start = self.watch.model, each.window.window.start
        await self._sql.executemany(
            "insert into distances (model, window_start, name, statistic, distance, threshold, drifted)"
            " values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing",
            [
                (model, start, one.column, one.statistic, one.distance, one.threshold, one.drifted)
                for one in shown(each.measured)
            ],
        )

    async def _store_window(self, changes: Changes) -> None:
        if changes.window is None:
            return
        window = changes.window
        await self._sql.execute(
            "insert into windows (model, window_start, window_end, events, closed, columns, slices)"
            " values ($1, $2, $3, $4, $5, $6, $7) on conflict (model, window_start) do update set"
            " events = excluded.events, closed = excluded.closed, columns = excluded.columns, slices = excluded.slices"
            " where not windows.closed or excluded.closed",
            window.model,
            window.window.start,
            window.window.end,
            window.events,
            window.closed,
            json.dumps(compact_columns(window)),
            json.dumps(compact_slices(window)),
        )

    async def _store_events(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case AlertRaised():
                    await self._sql.execute(
                        "insert into alerts (alert_id, model, kind, time, event) values ($1, $2, $3, $4, $5)",
                        *(event.alert_id, event.model, event.kind, event.time, event.model_dump_json()),
                    )
                case ArmsCompared():
                    await self._sql.execute(
                        "insert into comparisons (model, candidate, event) values ($1, $2, $3)"
                        " on conflict (model, candidate) do update set event = excluded.event",
                        *(event.model, event.candidate, event.model_dump_json()),
                    )
                case PerformanceEstimated():
                    await self._sql.execute(
                        "insert into estimates (model, start, arm, version, event) values ($1, $2, $3, $4, $5)"
                        " on conflict (model, start, arm, version) do update set event = excluded.event",
                        *(event.model, event.cohort.start, event.arm, event.version or 0, event.model_dump_json()),
                    )
                case TrainingRequested():
                    await self._sql.execute(
                        "insert into requests (run_id, model, time, event) values ($1, $2, $3, $4)",
                        *(event.run_id, event.model, event.time, event.model_dump_json()),
                    )
                case _:
                    continue


class PostgresWatches:
    """All watches, one copy of each in memory."""

    def __init__(self, database: Database, tools: Tools, topics: Topics) -> None:
        self._database = database
        self._topics = topics
        self._tools = tools
        self._copies: dict[str, _Copy] = {}

    @asynccontextmanager
    async def sitting(self, model: str, trail_length: int) -> AsyncIterator[PostgresSitting]:
        """The model's watch, locked; what changed is stored when the block ends well."""
        copy = self._copies.pop(model, None)
        async with self._database.transaction() as connection:
            version = await self._lock(connection, model)
            watch = copy.watch if copy and copy.version == version else None
            watch = watch or await self._read(connection, model, trail_length)
            watch.changes = Changes()
            sitting = PostgresSitting(connection, watch, self._topics)
            yield sitting
            version = await sitting.store(version)
        self._copies[model] = _Copy(version, watch)

    async def _lock(self, connection: Connection, model: str) -> int:
        lock = "select version from watches where model = $1 for update"
        version = await connection.fetchval(lock, model)
        if version is None:
            await connection.execute("insert into watches (model) values ($1) on conflict do nothing", model)
            version = await connection.fetchval(lock, model)
        return int(version)

    async def _read(self, connection: Connection, model: str, trail_length: int) -> ModelWatch:
        state = await connection.fetchval("select state from watches where model = $1", model)
        steps = await connection.fetch(
            "select * from (select * from examples where model = $1 order by number desc limit $2) e order by number",
            model,
            trail_length,
        )
        cohorts = await connection.fetch("select body from cohorts where model = $1 and not closed", model)
        return ModelWatch(
            model,
            ModelState.model_validate_json(state),
            Trail(trail_length, map(_step, steps)),
            [Cohort.model_validate_json(row["body"]) for row in cohorts],
            self._tools,
        )


def _step(row: Any) -> Step:
    return Step(
        row["number"],
        Log(EXAMPLES, row["partition"]),
        row["offset"],
        row["prediction_id"],
        row["label_revision"],
        row["time"],
        row["error"],
    )
