"""What happens with each kind of fact: open the model's watch, let it observe, store.

A batch is handled model by model, each in a sitting of its own: a transaction that holds the model's lock. What one
process has stored the next one finds, so a batch that comes again after a crash, or a partition that moves to another
process, changes nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tailrace_contracts.events import ServingMeasured, WindowSummarised
from tailrace_contracts.ranges import Log
from tailrace_contracts.spec import NumericalLabel
from tailrace_monitoring.domain.closed_cohorts import judge_labels
from tailrace_monitoring.domain.cohorts import CohortKey
from tailrace_monitoring.domain.examples import observe
from tailrace_monitoring.domain.knowledge import Knowledge
from tailrace_monitoring.domain.lessons import Foretell, learn_losses
from tailrace_monitoring.domain.measurements import take_measurements
from tailrace_monitoring.domain.multivariate import TellApart, Told, comparable, tell
from tailrace_monitoring.domain.state import Placed
from tailrace_monitoring.domain.watched import trail_length
from tailrace_monitoring.domain.window_estimates import estimate_numbers, estimate_window
from tailrace_monitoring.domain.window_judgement import basis_of, judge_rows, reference_unusable, take_window
from tailrace_monitoring.domain.windows import Reading
from tailrace_monitoring.domain.yardsticks import NO_BASIS, Basis, Yardsticks, chance_together
from tailrace_monitoring.ports import Gazette, Meter, References, ReferenceUnusable, Sitting, WatchStore
from tailrace_runtime.clock import Clock


@dataclass(frozen=True, slots=True)
class Watchers:
    """What the handlers work with."""

    gazette: Gazette
    store: WatchStore
    references: References
    meter: Meter
    clock: Clock
    tell_apart: TellApart | None = None
    foretell: Foretell | None = None
    yardsticks: Yardsticks = field(default_factory=Yardsticks)


async def observe_examples(model: str, batch: Sequence[Placed], known: Knowledge, watchers: Watchers) -> bool:
    """Labelled examples of one model, in order of their log. Gives back whether more is to be done in time."""
    now = watchers.clock.now()
    async with watchers.store.sitting(model, trail_length(known.spec)) as sitting:
        watch = sitting.watch
        watch.cohorts.take(await sitting.cohorts(watch.cohorts.missing(batch, known.spec)))
        observe(watch, batch, known, now)
        if watch.labels_to_judge:
            reference = await _reference(sitting, None, known, watchers)
            await asyncio.to_thread(judge_labels, watch, reference, known, watchers.yardsticks, now)
        changes = watch.changes
    watchers.meter.report(watch, changes)
    return watch.waits(known, now)


async def let_time_pass(model: str, known: Knowledge, watchers: Watchers) -> bool:
    """Do what has been waiting for its time. Gives back whether something still waits."""
    now = watchers.clock.now()
    async with watchers.store.sitting(model, trail_length(known.spec)) as sitting:
        watch = sitting.watch
        watch.follow(known, now)
        watch.ask_for_training(known, now)
        watch.publish(known, now)
        changes = watch.changes
    watchers.meter.report(watch, changes)
    return watch.waits(known, now)


async def observe_window(placed: tuple[Log, int, WindowSummarised], known: Knowledge, watchers: Watchers) -> None:
    """One window of feature statistics."""
    now = watchers.clock.now()
    async with watchers.store.sitting(placed[2].model, trail_length(known.spec)) as sitting:
        watch = sitting.watch
        trained_on = await _reference(sitting, placed[2], known, watchers)
        basis = basis_of(watch, placed[2], trained_on, known)
        readings = await _readings(basis, placed[2], known, watchers)
        told = await _told_apart(basis, placed[2], known, watchers)
        if take_window(watch, placed, trained_on.columns, readings, known, now=now) and placed[2].closed:
            if isinstance(known.spec.label, NumericalLabel):
                await _estimate_numbers(sitting, placed, known, watchers)
            else:
                await _estimate(sitting, placed, known, now)
            if told is not None:
                judge_rows(watch, placed[2], told, known, now)
        changes = watch.changes
    watchers.meter.report(watch, changes)


async def observe_answers(
    model: str, batch: Sequence[tuple[Log, int, ServingMeasured]], known: Knowledge, watchers: Watchers
) -> bool:
    """What serving measured of one model, in order of the log. Gives back whether more is to be done in time."""
    now = watchers.clock.now()
    async with watchers.store.sitting(model, trail_length(known.spec)) as sitting:
        watch = sitting.watch
        take_measurements(watch, batch, known, now)
        changes = watch.changes
    watchers.meter.report(watch, changes)
    return watch.waits(known, now)


async def _estimate(
    sitting: Sitting, placed: tuple[Log, int, WindowSummarised], known: Knowledge, now: datetime
) -> None:
    """Estimate the window's performance from the probabilities in it and from labelled cohorts before it."""
    start = placed[2].window.start
    keys = {CohortKey(start, part.arm, part.version or 0) for part in placed[2].slices if part.arm is not None}
    if known.spec.monitors.estimation is None or not keys:
        return
    sitting.watch.cohorts.take(await sitting.cohorts(sitting.watch.cohorts.unknown(keys)))
    past = {version: await sitting.labelled(version, start) for version in sorted({key.version for key in keys})}
    estimate_window(sitting.watch, placed, past, known, now)


async def _estimate_numbers(
    sitting: Sitting, placed: tuple[Log, int, WindowSummarised], known: Knowledge, watchers: Watchers
) -> None:
    """Estimate a regression's error in the window from its sampled rows, for what was served.

    The learning takes a second or two, beside the event loop. A canary's rows are among the sampled ones.
    """
    monitor, window, watch = known.spec.monitors.estimation, placed[2], sitting.watch
    if monitor is None or watchers.foretell is None:
        return
    for part in window.slices:
        if part.arm not in {"champion", "external"} or part.events < monitor.min_events:
            continue
        key = CohortKey(window.window.start, part.arm, part.version or 0)
        watch.cohorts.take(await sitting.cohorts(watch.cohorts.unknown([key])))
        lessons = await sitting.lessons(key.version)
        basis = await asyncio.to_thread(
            learn_losses, lessons, window, known.spec, watch.state.regime, watchers.foretell
        )
        estimate_numbers(watch, placed, part, basis, known, now=watchers.clock.now())


async def _told_apart(
    basis: Basis | None, window: WindowSummarised, known: Knowledge, watchers: Watchers
) -> Told | None:
    """How far the window's rows lie from the reference's, beside the event loop; None where that is not judged."""
    if watchers.tell_apart is None or basis is None:
        return None
    if not comparable(window, basis.rows, known.spec.monitors.multivariate):
        return None
    chance = chance_together(known.spec, basis)
    return await asyncio.to_thread(tell, window, basis.rows, known.spec, chance, watchers.tell_apart)


async def _reference(sitting: Sitting, window: WindowSummarised | None, known: Knowledge, watchers: Watchers) -> Basis:
    """What the champion was trained on; nothing where there is no such thing, or where it cannot be read.

    The latter is told with a window.
    """
    version = known.versions.get(known.champion or 0)
    if version is None or version.reference is None:
        return NO_BASIS
    try:
        return await watchers.references.basis(version.reference, version.version)
    except ReferenceUnusable as error:
        if window is not None:
            reference_unusable(sitting.watch, version.version, str(error), window, known, now=watchers.clock.now())
        return NO_BASIS


async def _readings(
    basis: Basis | None, window: WindowSummarised, known: Knowledge, watchers: Watchers
) -> list[Reading]:
    """The window's tests. Thresholds that are not known yet take seconds to calibrate: beside the event loop."""
    if basis is None:
        return []
    return await asyncio.to_thread(watchers.yardsticks.read, window, basis, known.spec)


def by_model(batch: Sequence[Placed]) -> dict[str, list[Placed]]:
    """The examples of each model, in their order."""
    found: dict[str, list[Placed]] = {}
    for placed in batch:
        found.setdefault(placed.example.model, []).append(placed)
    return found
