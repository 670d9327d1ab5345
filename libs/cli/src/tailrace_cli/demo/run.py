"""The two demos from start to report.

A demo plays under a model name of its own (`rain`, then `rain-2`, …), so that it can run again beside what earlier runs
have left. It reads what happens from the topics, like anybody else, and adds it up at the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from tailrace_cli.connection import Connection
from tailrace_cli.demo import datasets, report
from tailrace_cli.demo.datasets import Row
from tailrace_cli.demo.scoring import first_version_accuracy, river_accuracy
from tailrace_cli.demo.story import Story
from tailrace_cli.demo.view import shown
from tailrace_cli.demo.watcher import Watcher, watching
from tailrace_cli.demo.weather import HISTORY, PATIENCE_SECONDS, Player, prediction_id, publish_history, until
from tailrace_cli.registry import issue
from tailrace_cli.state import known
from tailrace_client import AsyncPublisher
from tailrace_contracts.events import ApplySpec
from tailrace_contracts.spec import ModelSpec

EMPLOYMENT_LABEL_DELAY = 5_000
EMPLOYMENT_MAX_BEHIND = 20_000
SETTLE_SECONDS = 3.0


async def free_name(connection: Connection, wanted: str) -> str:
    """The wanted model name, or the first of `<wanted>-2`, `<wanted>-3`, … that has no spec yet."""
    taken = (await known(connection)).specs
    names = (wanted if number == 1 else f"{wanted}-{number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


async def apply(connection: Connection, spec: ModelSpec) -> None:
    """Apply the spec, as `tailrace apply` does."""
    await issue(connection, spec.model, ApplySpec(spec=spec), reason="demo")


def named(spec: ModelSpec, name: str) -> ModelSpec:
    """The same spec under another model name."""
    return spec.model_copy(update={"model": name})


# ---------------------------------------------------------------- weather


async def weather(
    connection: Connection, console: Console, *, rate: float | None, limit: int | None, signing_key: bytes, objects: str
) -> report.Report:
    """Play the weather and report. Raises CommandError when the loop does not get on."""
    began = time.monotonic()
    spec = named(datasets.spec("rain"), await free_name(connection, "rain"))
    rows = datasets.weather()
    history, live = rows[:HISTORY], rows[HISTORY:][:limit]
    story = Story(spec.model, is_live=lambda question: question >= prediction_id(spec.model, HISTORY))
    await apply(connection, spec)
    async with (
        watching(connection, story, f"{spec.model}-") as watcher,
        AsyncPublisher(connection.bootstrap, topic_prefix=connection.topic_prefix, source="/demo") as publisher,
    ):
        player = Player(connection, publisher, spec, story, rate)
        async with shown(console, watcher, lambda: _progress(story, player, len(live))):
            await publish_history(publisher, spec, history)
            await until(
                lambda: story.deployment is not None and story.deployment.champion is not None, "the first training"
            )
            played = await player.play(live)
            await settle(watcher, lambda: len(story.joined) >= len(history) + played.answered, story)
            await until(
                lambda: story.learned >= len(story.joined) or not spec.learners.online, "learning the last example", 30
            )
        first = await asyncio.to_thread(first_version_accuracy, story.versions[1], spec, live, objects, signing_key)
        alone = await asyncio.to_thread(river_accuracy, spec, history, live)
    events = report.EventCounts(
        published=len(history) + played.answered,
        valid=len(story.valid),
        dead_lettered=len(story.parked_from("prediction-events")),
    )
    labels = report.LabelCounts(
        published=len(history) + played.labelled,
        joined=len(story.joined),
        corrected=story.corrections,
        dead_lettered=len(story.parked_from("label-events")),
    )
    problems = report.count_problems(events, labels, events.valid) + report.loop_problems(story) + played.failed[:5]
    return report.Report(
        demo="weather",
        model=spec.model,
        seconds=round(time.monotonic() - began, 1),
        played_seconds=round(played.seconds, 1),
        events_per_second=round(played.rate, 1),
        events=events,
        labels=labels,
        examples_learned=story.learned,
        out_of_limits=report.out_of_limits(story),
        versions=report.versions(story),
        alerts=report.alerts(story),
        retrainings=report.retrainings(story),
        promotions=report.champions(story, story.promotions),
        rollbacks=report.champions(story, story.rollbacks),
        accuracy=report.Accuracies(served=story.served.accuracy, first_version=first, river_alone=alone),
        served_by=dict(story.served_by),
        windows=len(story.windows),
        problems=tuple(problems),
    )


def _progress(story: Story, player: Player, days: int) -> str:
    played = player.played
    if not played.started:
        return f"history: {len(story.joined):,} of {HISTORY:,} days joined, training version 1"
    return f"day {played.answered:,} of {days:,}, {played.rate:,.0f} inferences/s"


async def settle(watcher: Watcher, complete: Callable[[], bool], story: Story) -> None:
    """Wait until every example is joined, and then until nothing has been told for a while."""
    await until(complete, "joining the last label")
    quiet_since, before = time.monotonic(), _told(story)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() - quiet_since < SETTLE_SECONDS and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        if _told(story) != before or any(flow.lag for group, flow in watcher.flows.items() if not _gathers(group)):
            quiet_since, before = time.monotonic(), _told(story)


def _gathers(group: str) -> bool:
    """The archive gathers records into files for half a minute: its lag is no sign of work in hand."""
    return group.endswith("-archive")


def _told(story: Story) -> tuple[int, ...]:
    events = sum(window.events for window in story.windows.values())
    return (len(story.joined), story.learned, len(story.alerts), len(story.deployments), len(story.cohorts), events)


# ---------------------------------------------------------------- employment


async def employment(connection: Connection, console: Console, *, limit: int | None) -> report.Report:
    """Play the survey and report."""
    began = time.monotonic()
    spec = named(datasets.spec("employment"), await free_name(connection, "employment"))
    story = Story(spec.model, is_live=lambda _: True)
    await apply(connection, spec)
    sent = {"events": 0, "labels": 0}
    async with (
        watching(connection, story, f"{spec.model}-") as watcher,
        AsyncPublisher(connection.bootstrap, topic_prefix=connection.topic_prefix, source="/demo") as publisher,
        shown(console, watcher, lambda: f"{sent['events']:,} predictions, {sent['labels']:,} labels published"),
    ):
        playing = time.monotonic()
        await _play_survey(publisher, spec, story, sent, limit)
        await settle(watcher, lambda: len(story.joined) >= len(story.valid), story)
        seconds = time.monotonic() - playing
    events = report.EventCounts(
        published=sent["events"], valid=len(story.valid), dead_lettered=len(story.parked_from("prediction-events"))
    )
    labels = report.LabelCounts(
        published=sent["labels"],
        joined=len(story.joined),
        corrected=story.corrections,
        dead_lettered=len(story.parked_from("label-events")),
    )
    problems = report.count_problems(events, labels, events.valid)
    return report.Report(
        demo="employment",
        model=spec.model,
        seconds=round(time.monotonic() - began, 1),
        played_seconds=round(seconds, 1),
        events_per_second=round(sent["events"] / seconds, 1),
        events=events,
        labels=labels,
        examples_learned=story.learned,
        out_of_limits=report.out_of_limits(story),
        alerts=report.alerts(story),
        accuracy=report.Accuracies(served=story.served.accuracy),
        served_by=dict(story.served_by),
        windows=len(story.windows),
        drift=drift_since_reference(story, spec),
        cohorts=_cohorts(story),
        groups=report.pooled([rates for each in story.cohorts.values() for rates in each.groups]),
        problems=tuple(problems),
    )


async def _play_survey(
    publisher: AsyncPublisher, spec: ModelSpec, story: Story, sent: dict[str, int], limit: int | None
) -> None:
    waiting: list[Row] = []
    for row in datasets.employment():
        if limit is not None and row.number >= limit:
            break
        await publisher.prediction(
            model=spec.model,
            features=row.features,
            prediction=row.prediction,
            probability=row.probability,
            prediction_id=prediction_id(spec.model, row.number),
            time=row.time,
        )
        sent["events"] += 1
        waiting.append(row)
        if len(waiting) >= 2 * EMPLOYMENT_LABEL_DELAY:
            await _label(publisher, spec, waiting[:EMPLOYMENT_LABEL_DELAY], sent)
            del waiting[:EMPLOYMENT_LABEL_DELAY]
            await until(lambda: sent["labels"] - len(story.joined) < EMPLOYMENT_MAX_BEHIND, "joining labels")
    await _label(publisher, spec, waiting, sent)
    await publisher.flush()


async def _label(publisher: AsyncPublisher, spec: ModelSpec, rows: Sequence[Row], sent: dict[str, int]) -> None:
    for row in rows:
        await publisher.label(prediction_id(spec.model, row.number), model=spec.model, label=row.label, time=row.time)
        sent["labels"] += 1


def drift_since_reference(story: Story, spec: ModelSpec) -> dict[str, float]:
    """The largest distance of any later closed window to the reference period, by column, largest first."""
    from tailrace_statistics import distance, merge
    from tailrace_statistics.distances import chosen

    monitor = spec.monitors.drift
    if monitor is None or monitor.reference is None:
        return {}
    start, end = monitor.reference.start, monitor.reference.end
    windows = [each for each in story.windows.values() if each.closed and each.events >= monitor.min_examples]
    inside = [each for each in windows if start <= each.window.start and each.window.end <= end]
    later = [each for each in windows if each.window.start >= end]
    largest: dict[str, float] = {}
    for name in inside[0].columns if inside else ():
        reference = inside[0].columns[name]
        for each in inside[1:]:
            reference = merge(reference, each.columns[name])
        kind = chosen(monitor.by_column.get(name, monitor.distance), reference)
        distances = [distance(kind, reference, each.columns[name]) for each in later]
        largest[name] = round(max(distances, default=0.0), 4)
    return dict(sorted(largest.items(), key=lambda item: -item[1]))


def _cohorts(story: Story) -> tuple[dict[str, Any], ...]:
    """Performance by prediction-time cohort, in order, with what was estimated first, before the last labels came."""
    first = {
        key: {name: round(value, 4) for name, value in each.estimates["accuracy"] if name != "realised"}
        for key, each in story.estimates.items()
        if "accuracy" in each.estimates
    }
    return tuple(
        {
            "from": start,
            "arm": arm,
            "version": version,
            "examples": each.examples,
            "accuracy": round(each.accuracy or 0, 4),
            **({"estimated": first[start, arm, version]} if (start, arm, version) in first else {}),
        }
        for (start, arm, version), each in sorted(story.cohorts.items(), key=lambda item: str(item[0]))
    )
