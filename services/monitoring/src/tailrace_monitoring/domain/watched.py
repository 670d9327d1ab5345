"""One model under watch: labelled examples and windows in, facts out.

`ModelWatch` is the aggregate that a transaction loads, changes and stores. What has to outlive a process stands in
`state`, in the trail and in the cohorts; the rest (the live detector, what was published when) can be built again from
them. All changes of one call are gathered in `changes`, so that the store writes them, and the events that announce
them, at once. A record at or below the offset that its log has been applied through changes nothing.

In the order of an example: who champions now, then each arm's score and cohort, the champion's error into the alarm,
each candidate against the champion; at the end of a batch, cohorts that close, the training that is due, and what is to
be published.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from tailrace_contracts.events import (
    AlertRaised,
    ArmOutput,
    ColumnSummary,
    ExampleLabelled,
    PerformanceEstimated,
    Slice,
    WindowSummarised,
)
from tailrace_contracts.ranges import Log, LogRanges
from tailrace_contracts.spec import ConceptDriftMonitor, Label, ModelSpec, NumericalLabel
from tailrace_monitoring.domain import alerts, estimation, ledger
from tailrace_monitoring.domain.arms import answers, arm_title, champions_answer, loss
from tailrace_monitoring.domain.cohort_book import CohortBook
from tailrace_monitoring.domain.cohorts import MIN_COHORT_EXAMPLES, Cohort, CohortKey, asked_of, unfair_pairs
from tailrace_monitoring.domain.comparison import Comparison
from tailrace_monitoring.domain.concept import LONGEST, Alarm, Detector, ErrorAlarm, Scaled
from tailrace_monitoring.domain.knowledge import Knowledge
from tailrace_monitoring.domain.label_drift import shift_of
from tailrace_monitoring.domain.lessons import Lesson
from tailrace_monitoring.domain.multivariate import TOGETHER, Told
from tailrace_monitoring.domain.retraining import Cause, Pending, Situation
from tailrace_monitoring.domain.scores import SERVED, Score
from tailrace_monitoring.domain.state import Changes, Distances, ModelState, Placed, Tools
from tailrace_monitoring.domain.trail import Step, Trail
from tailrace_monitoring.domain.windows import QUALITY, Measured, Reading, faults_in
from tailrace_monitoring.domain.yardsticks import Basis, chance_of_labels, columns_of
from tailrace_runtime.highwater import HighWater

PUBLISH_EVERY = timedelta(seconds=1)
"""Comparisons and open cohorts are published at most this often, unless a verdict changed or a cohort closed."""

RUN_PATIENCE = timedelta(hours=6)
"""A training of which nothing was heard for so long is given up, so that another may be asked for."""


def trail_length(spec: ModelSpec) -> int:
    """How many of a model's newest examples are kept in memory: for the alarm's replay, and for a training."""
    batch = spec.learners.batch
    return max(LONGEST, batch.max_examples if batch else 0)


REMEMBERED_WINDOWS = 100
"""Windows of which an old state is known for one."""


class ModelWatch:
    """One model: its state, its trail, its cohorts in memory, and the live alarm."""

    def __init__(self, model: str, state: ModelState, trail: Trail, cohorts: Iterable[Cohort], tools: Tools) -> None:
        self.model = model
        self.state = state
        self.trail = trail
        self.cohorts = CohortBook(cohorts)
        self.labels_to_judge: list[Cohort] = []
        self.changes = Changes()
        self._tools = tools
        self._alarm: ErrorAlarm | None = None
        self._alarm_spec: ConceptDriftMonitor | None = None
        self._published: datetime | None = None
        self._seen = {name: self._marks(name) for name in state.marks}

    # ------------------------------------------------------------ what has been applied

    def _marks(self, name: str) -> HighWater:
        seen = HighWater(capacity=self.trail.length)
        identities = [[step.prediction_id, step.label_revision] for step in self.trail.since(0)]
        seen.load({"marks": self.state.marks.get(name, []), "identities": identities})
        return seen

    def _is_new(self, log: Log, offset: int) -> bool:
        name = f"{log.topic}/{log.partition}"
        if offset <= self.state.through.get(name, -1):
            return False
        self.state.through[name] = offset
        self.changes.touched = True
        return True

    def _says_more(self, window: WindowSummarised) -> bool:
        """Whether a window was derived from no less than before: a process that slept may publish an old state late."""
        extents, name = self.state.extents, window.window.start.isoformat()
        if window.derived_from.extent < extents.get(name, 0):
            return False
        extents[name] = window.derived_from.extent
        for old in sorted(extents)[:-REMEMBERED_WINDOWS]:
            del extents[old]
        return True

    def _is_new_example(self, placed: Placed) -> bool:
        if not self._is_new(placed.log, placed.offset):
            return False
        name = f"{placed.log.topic}/{placed.log.partition}"
        seen = self._seen.get(name) or self._seen.setdefault(name, self._marks(name))
        example = placed.example
        return seen.admit(example.trigger, (example.prediction_id, example.label_revision))

    # ------------------------------------------------------------ labelled examples

    def observe(self, batch: Sequence[Placed], knowledge: Knowledge, now: datetime) -> None:
        """Take in a batch of labelled examples of one log, in order."""
        self.follow(knowledge, now)
        for placed in batch:
            if self._is_new_example(placed):
                self._example(placed, knowledge, now)
        self.state.marks = {name: seen.marks() for name, seen in self._seen.items()}
        self._close_cohorts(knowledge, now)
        self.ask_for_training(knowledge, now)
        self.publish(knowledge, now)

    def _example(self, placed: Placed, knowledge: Knowledge, now: datetime) -> None:
        example, correction = placed.example, placed.example.label_revision > 0
        champion = champions_answer(example, self.state.champion)
        label = knowledge.spec.label
        error = None if champion is None or correction else loss(champion, example.label, label)
        step = self._step(placed, error, now)
        self.changes.cohorts |= self.cohorts.count(placed, knowledge.spec)
        self._learn_error(placed, step.number, knowledge)
        if not correction:
            self._score(example, label)
            self._compare(placed, champion, knowledge)
            if error is not None and self._alarm is not None:
                self._sound(self._alarm.observe(step.number, error), knowledge, now)
        self.ask_for_training(knowledge, now)

    def _learn_error(self, placed: Placed, number: int, knowledge: Knowledge) -> None:
        """Keep what a regression's answers teach of its error."""
        if knowledge.spec.monitors.estimation is None or not isinstance(knowledge.spec.label, NumericalLabel):
            return
        self.changes.lessons.extend(
            Lesson.of(number, placed.log, placed.offset, placed.example, output)
            for output in answers(placed.example).values()
        )

    def _step(self, placed: Placed, error: float | None, now: datetime) -> Step:
        self.state.examples += 1
        example = placed.example
        step = Step(
            self.state.examples,
            placed.log,
            placed.offset,
            example.prediction_id,
            example.label_revision,
            example.time,
            error,
        )
        self.trail.append(step)
        self.changes.steps.append(step)
        self.state.retraining.newest_at = now
        watermark = self.state.watermark
        self.state.watermark = example.time if watermark is None else max(watermark, example.time)
        return step

    def _score(self, example: ExampleLabelled, label: Label) -> None:
        for version, output in answers(example).items():
            score = self._score_of(str(version or output.arm), version, output.arm)
            score.count(output.arm, output, example.label, label)
        if example.served is not None:
            self._score_of(SERVED, None, SERVED).count(SERVED, example.served, example.label, label)

    def _score_of(self, name: str, version: int | None, arm: str) -> Score:
        return self.state.scores.setdefault(name, Score(arm=arm, version=version))

    def _compare(self, placed: Placed, champion: ArmOutput | None, knowledge: Knowledge) -> None:
        if champion is None:
            return
        given = answers(placed.example)
        for comparison in self.state.comparisons.values():
            candidate = given.get(comparison.candidate)
            if candidate is None:
                continue
            limit = knowledge.spec.rollout.max_examples
            if knowledge.is_continual(comparison.candidate) and comparison.examples >= limit:
                comparison.restart()
            comparison.fold(placed, champion, candidate, knowledge.spec.label)

    # ------------------------------------------------------------ who champions, and the alarm on it

    def follow(self, knowledge: Knowledge, now: datetime) -> None:
        """Catch up with the deployment, the spec and the runs that are over."""
        self._follow_deployment(knowledge)
        self._follow_spec(knowledge)
        retraining = self.state.retraining
        asked = retraining.outstanding_since
        silent = asked is not None and now - asked > RUN_PATIENCE
        if retraining.outstanding and (silent or retraining.outstanding in knowledge.runs_over):
            retraining.over(retraining.outstanding)
            self.changes.touched = True

    def _follow_deployment(self, knowledge: Knowledge) -> None:
        state = self.state
        if knowledge.sequence <= state.sequence:
            return
        self.changes.touched = True
        state.sequence = knowledge.sequence
        champion = knowledge.champion
        if champion != state.champion:
            state.champion, state.alarm_from, state.comparisons = champion, state.examples + 1, {}
            state.breached = {key: since for key, since in state.breached.items() if key.startswith(QUALITY)}
            self._alarm = None
        candidates = knowledge.candidates if champion is not None else {}
        state.comparisons = {number: each for number, each in state.comparisons.items() if number in candidates}
        for number, stage in candidates.items():
            fresh = Comparison.start(champion or 0, number, stage, knowledge.spec.rollout.error_rate)
            state.comparisons.setdefault(number, fresh).enter(stage)

    def _follow_spec(self, knowledge: Knowledge) -> None:
        monitor = knowledge.spec.monitors.concept_drift
        self.trail = self.trail.lengthened(trail_length(knowledge.spec))
        if monitor is None:
            self._alarm, self._alarm_spec = None, None
        elif self._alarm is None or monitor != self._alarm_spec:
            self._alarm_spec = monitor
            self._alarm = ErrorAlarm(lambda: self._detector(monitor, knowledge.spec.label), monitor.min_examples)
            kept = self.trail.since(self.state.alarm_from)
            self._alarm.replay((step.number, step.error) for step in kept if step.error is not None)

    def _detector(self, monitor: ConceptDriftMonitor, label: Label) -> Detector:
        detector = self._tools.detector(monitor)
        numerical = isinstance(label, NumericalLabel)
        return Scaled(detector, monitor.detector, monitor.min_examples) if numerical else detector

    def _sound(self, alarm: Alarm | None, knowledge: Knowledge, now: datetime) -> None:
        if self._alarm is not None:
            self.state.alarm_from = self._alarm.start or self.state.examples + 1
        monitor = self._alarm_spec
        if alarm is None or monitor is None:
            return
        steps = list(self.trail.since(alarm.since))
        raised = alerts.concept_drift(self._stamp(now), self.state.champion, alarm, steps, knowledge.spec)
        self.state.regime = steps[0].time
        for comparison in self.state.comparisons.values():
            comparison.restart()
        self._raise(raised, knowledge, "concept-drift", alarm.since)

    def _stamp(self, now: datetime) -> alerts.Stamp:
        return alerts.Stamp(self._tools.new_id(), self.model, now)

    def _new_run(self) -> str:
        return f"run-{self._tools.new_id()}"

    def _raise(self, alert: AlertRaised, knowledge: Knowledge, cause: Cause | None, since: int | None) -> None:
        """Announce an alert, with the training that it leads to. One that is muted leads to nothing."""
        led_to, mute = "", knowledge.mute_of(alert)
        if mute is not None:
            told = {"muted_by": mute.owner, "muted_until": mute.until, "mute_id": mute.mute_id}
            alert = alert.model_copy(update=told)
        elif cause is not None:
            run_id = self._new_run()
            pending = Pending(run_id=run_id, since=since, due=0, reason=alert.message, requested_by=f"{cause} alert")
            tried = knowledge.batch_candidate_on_trial and cause != "concept-drift"
            wanted = not tried and self.state.retraining.alert(
                cause, since, self.state.examples, knowledge.spec, pending
            )
            led_to = run_id if wanted else ""
        self.changes.events.append(alert.model_copy(update={"led_to": led_to}))
        self.changes.touched = True

    # ------------------------------------------------------------ cohorts, training, publication

    def _close_cohorts(self, knowledge: Knowledge, now: datetime) -> None:
        if self.state.watermark is None:
            return
        for cohort in self.cohorts.close(self.state.watermark, knowledge.spec.monitors.allowed_lateness_days):
            self.changes.cohorts.add(cohort.key)
            if cohort.examples:
                self._measure(cohort, knowledge, now)
                self._judge(cohort, knowledge, now)

    def _judge(self, cohort: Cohort, knowledge: Knowledge, now: datetime) -> None:
        if cohort.arm not in {"champion", "external"} or cohort.examples < MIN_COHORT_EXAMPLES:
            return
        self._judge_performance(cohort, knowledge, now)
        if knowledge.spec.monitors.drift is not None and cohort.version == self.state.champion:
            self.labels_to_judge.append(cohort)
        if knowledge.spec.monitors.fairness.alert:
            self._judge_fairness(cohort, knowledge, now)

    def judge_labels(self, trained_on: Basis, knowledge: Knowledge, now: datetime) -> None:
        """Judge the labels of the cohorts that have just closed; `trained_on` is the champion's reference."""
        monitor, drift, spec = knowledge.spec.monitors.drift, self.state.labels, knowledge.spec
        closed, self.labels_to_judge = self.labels_to_judge, []
        drift.rebase(self.basis_name(knowledge))
        for cohort in closed:
            if monitor is None:
                return
            reference = trained_on.labels
            if monitor.reference is not None:
                drift.gather(cohort, monitor.reference)
                reference = drift.of_period if cohort.span.start >= monitor.reference.end else None
            if reference is None or min(reference.count, cohort.labels.count) < monitor.min_examples:
                continue
            shift = shift_of(cohort, reference, spec.label, chance_of_labels(spec))
            alert, since = drift.judge(cohort, shift), drift.since or cohort.span.start
            drifted = shift.deviations > shift.threshold
            far = (shift.deviations, shift.threshold, False, drifted, alert, since)
            for _ in self._to_tell([Measured(spec.label.name, "labels", *far)], knowledge, now):
                raised = alerts.label_drift(self._stamp(now), cohort, shift, since, spec)
                self._raise(raised, knowledge, "feature-drift", self.trail.first_from(since))

    def _judge_performance(self, cohort: Cohort, knowledge: Knowledge, now: datetime) -> None:
        for asked in asked_of(cohort, knowledge.spec.monitors.performance):
            key = f"{arm_title(cohort.arm, cohort.version)}|{asked.metric}"
            if asked.holds:
                self.state.breached.pop(key, None)
                continue
            since = self.state.breached.setdefault(key, cohort.span.start)
            raised = alerts.poor_performance(self._stamp(now), cohort, asked, since)
            self._raise_for(cohort, raised, knowledge)

    def _raise_for(self, cohort: Cohort, raised: AlertRaised, knowledge: Knowledge) -> None:
        answers_now = cohort.version == self.state.champion
        first = self.trail.first_from(max(cohort.span.start, self.state.regime or cohort.span.start))
        self._raise(raised, knowledge, "performance" if answers_now else None, first)

    def _judge_fairness(self, cohort: Cohort, knowledge: Knowledge, now: datetime) -> None:
        monitor, who = knowledge.spec.monitors.fairness, arm_title(cohort.arm, cohort.version)
        before = {key: since for key, since in self.state.breached.items() if key.startswith(f"{who}|fairness|")}
        for found in unfair_pairs(cohort, monitor):
            pair = found.pair
            key = f"{who}|fairness|{pair.attribute}|{pair.rate}|{found.limit}"
            since = self.state.breached.setdefault(key, cohort.span.start)
            before.pop(key, None)
            raised = alerts.unfair(self._stamp(now), cohort, found, found.allowed(monitor), since)
            self._raise(raised, knowledge, None, None)
        for key in before:
            del self.state.breached[key]

    def _measure(self, cohort: Cohort, knowledge: Knowledge, now: datetime) -> None:
        self.cohorts.unmeasured.discard(cohort.key)
        monitor = knowledge.spec.monitors.fairness
        self.changes.events.append(cohort.measured(self._tools.new_id(), self.model, monitor, now))
        self._estimate(cohort, knowledge, now)

    def _estimate(self, cohort: Cohort, knowledge: Knowledge, now: datetime) -> PerformanceEstimated | None:
        """Publish what the cohort's performance is estimated to be, where there is something to tell it from."""
        monitor = knowledge.spec.monitors.estimation
        if monitor is None:
            return None
        situation = estimation.Situation(self._tools.new_id(), self.model, self.state.regime, self.state.trust, now)
        found = estimation.estimated(cohort, monitor, situation)
        if found is not None:
            self.changes.cohorts.add(cohort.key)
            self.changes.events.append(found)
            self.changes.touched = True
        return found

    def _situation(self, knowledge: Knowledge, now: datetime) -> Situation:
        return Situation(self.state.examples, knowledge.has_batch_version, knowledge.batch_candidate_on_trial, now)

    def ask_for_training(self, knowledge: Knowledge, now: datetime) -> None:
        """Ask for the training that is due, if any."""
        request = self.state.retraining.due(knowledge.spec, self.trail, self._situation(knowledge, now), self._new_run)
        if request is not None:
            self.changes.events.append(request.event(self.model, knowledge.spec_revision, now))

    def waits(self, knowledge: Knowledge, now: datetime) -> bool:
        """Whether there will be something to do although no record comes: to publish, or to ask for a training."""
        return self._has_news() or self.state.retraining.waits(knowledge.spec, self._situation(knowledge, now))

    def _has_news(self) -> bool:
        return bool(self.cohorts.unmeasured) or any(each.unpublished for each in self.state.comparisons.values())

    def publish(self, knowledge: Knowledge, now: datetime) -> None:
        """Publish comparisons and open cohorts, at most once a second, and what cannot wait at once."""
        due = self._published is None or now - self._published >= PUBLISH_EVERY
        for comparison in self.state.comparisons.values():
            if comparison.unpublished and (due or comparison.is_urgent(knowledge.spec.rollout)):
                self.changes.events.append(comparison.publish(self._tools.new_id(), self.model, now))
                self.changes.touched = True
        if due and self._has_news():
            for cohort in self.cohorts.news():
                self._measure(cohort, knowledge, now)
        if due:
            self._published = now

    # ------------------------------------------------------------ windows

    def basis_name(self, knowledge: Knowledge) -> str:
        """The name of what windows are measured against now; empty where there is nothing."""
        monitor = knowledge.spec.monitors.drift
        if monitor is None:
            return ""
        if monitor.reference is not None:
            return f"{monitor.reference.start.isoformat()}..{monitor.reference.end.isoformat()}"
        version = knowledge.versions.get(knowledge.champion or 0)
        return f"version {version.version}" if version and version.reference else ""

    def basis(self, window: WindowSummarised, trained_on: Basis, knowledge: Knowledge) -> Basis | None:
        """What this window is to be measured against; None for one that is not judged.

        The champion's training set; or the reference period, for windows that begin after it.
        """
        drift, monitor = self.state.drift, knowledge.spec.monitors.drift
        if monitor is None or not drift.is_new(window, monitor):
            return None
        period = monitor.reference
        if period is None:
            return trained_on
        if window.window.start < period.end:
            return None
        name = f"{self.model} {self.basis_name(knowledge)} {len(drift.period_windows)}"
        rows = columns_of(drift.period_rows, drift.period)
        return Basis(name, drift.period, rows, labels=self.state.labels.of_period)

    def observe_window(
        self,
        placed: tuple[Log, int, WindowSummarised],
        reference: Mapping[str, ColumnSummary],
        readings: Sequence[Reading],
        knowledge: Knowledge,
        now: datetime,
    ) -> bool:
        """Take in one window of feature statistics; False for one that was taken in before, or newer than it.

        `reference` is the champion's; `readings` are the window's tests against its `basis`.
        """
        log, offset, window = placed
        self.follow(knowledge, now)
        if not self._is_new(log, offset) or not self._says_more(window):
            return False
        self.changes.window = window
        drift, monitors = self.state.drift, knowledge.spec.monitors
        drift.rebase(self.basis_name(knowledge))
        if window.closed and monitors.drift is not None:
            if monitors.drift.reference is not None:
                drift.gather(window, monitors.drift.reference, self._tools.merge)
                reference = drift.period if window.window.start >= monitors.drift.reference.end else {}
            measured = drift.judge(window, readings, monitors.drift)
            self.changes.distances.append(Distances(window, measured))
            self._remember(window, monitors.drift.consecutive_windows)
            for moved in self._to_tell(measured, knowledge, now):
                raised = alerts.feature_drift(self._stamp(now), moved, monitors, window)
                self._raise_drift(raised, knowledge)
        self._judge_quality(window, reference, knowledge, now)
        self.ask_for_training(knowledge, now)
        return True

    def _remember(self, window: WindowSummarised, windows: int) -> None:
        """Keep the log ranges of the windows that an alert can be about, where it is about several."""
        known = {**self.state.window_ranges, window.window.start: window.derived_from} if windows > 1 else {}
        self.state.window_ranges = {start: known[start] for start in sorted(known)[-windows:]}

    def _to_tell(self, measured: Sequence[Measured], knowledge: Knowledge, now: datetime) -> Iterator[list[Measured]]:
        """What has moved: first what is to be heard, then what is muted. What still moves when its mute ends is heard then."""
        hushed = set(self.state.hushed)
        muted = {each.key for each in measured if knowledge.is_muted("feature-drift", each.column, now)}
        heard_now = hushed - muted
        moved = [each for each in measured if each.alert or (each.drifted and each.key in heard_now)]
        on = {each.key for each in measured if each.drifted} & muted
        off = {each.key for each in measured} - on
        self.state.hushed = sorted((hushed | {each.key for each in moved if each.key in muted}) - off)
        yield from filter(None, ([each for each in moved if (each.key in muted) == quiet] for quiet in (False, True)))

    def _raise_drift(self, raised: AlertRaised, knowledge: Knowledge) -> None:
        """An alert about windows, with the log ranges of all windows since it began."""
        for start, ranges in self.state.window_ranges.items():
            if start >= raised.since:
                raised = raised.model_copy(update={"derived_from": raised.derived_from | ranges})
        self._raise(raised, knowledge, "feature-drift", self.trail.first_from(raised.since))

    def _judge_quality(
        self, window: WindowSummarised, reference: Mapping[str, ColumnSummary], knowledge: Knowledge, now: datetime
    ) -> None:
        """Tell of bad values, once for a window, and since which of the windows in a row they come."""
        breached, start = self.state.breached, window.window.start
        for fault in self.state.drift.faults(window, reference):
            since = breached[fault.key] = min(breached.get(fault.key, start), start)
            self._raise(alerts.bad_values(self._stamp(now), fault, window, since), knowledge, None, None)
        if window.closed:
            still = {fault.key for fault in faults_in(window, reference)}
            over = [key for key, since in breached.items() if key.startswith(QUALITY) and since <= start]
            for key in over:
                if key not in still:
                    del breached[key]

    def judge_rows(self, window: WindowSummarised, told: Told, knowledge: Knowledge, now: datetime) -> None:
        """Take in how far a closed window's rows lie from the reference's, after its columns were judged."""
        rows, shown = self.state.rows, bool(self.state.drift.streaks)
        alert = rows.judge(window.window.start, told, self.basis_name(knowledge), shown=shown)
        since = rows.since or window.window.start
        drifted = told.auc > told.threshold
        measured = Measured(TOGETHER, "AUC", told.auc, told.threshold, False, drifted, alert, since)  # noqa: FBT003
        self.changes.distances.append(Distances(window, [measured]))
        self.changes.touched = True
        for _ in self._to_tell([measured], knowledge, now):
            self._raise_drift(alerts.rows_drift(self._stamp(now), told, since, window), knowledge)

    def estimate_window(
        self,
        placed: tuple[Log, int, WindowSummarised],
        past: Mapping[int, Sequence[Cohort]],
        knowledge: Knowledge,
        now: datetime,
    ) -> None:
        """Estimate the performance of a closed window's arms; `past` are labelled cohorts by version, newest first."""
        monitor, (log, offset, window) = knowledge.spec.monitors.estimation, placed
        for each in estimation.answers_in(window, monitor.min_events) if monitor else ():
            key = CohortKey(window.window.start, each.arm, each.version or 0)
            basis = estimation.learn(past.get(key.version, ()), self.state.regime, monitor) if monitor else None
            cohort = self.cohorts.at(key, window.window, each.arm, each.version)
            before = cohort.ledger.first
            cohort.ledger.close(each.served, basis, LogRanges.of_offsets([(log, offset)]))
            self.changes.cohorts.add(key)
            self.changes.touched = True
            found = self._estimate(cohort, knowledge, now)
            if found is not None and before is None and cohort.ledger.first is not None:
                self._judge_estimate(found, knowledge, now)

    def estimate_numbers(
        self,
        placed: tuple[Log, int, WindowSummarised],
        part: Slice,
        basis: ledger.Basis | None,
        knowledge: Knowledge,
        now: datetime,
    ) -> None:
        """Estimate the error of a regression's answers in a closed window, from what was foretold of them."""
        log, offset, window = placed
        key = CohortKey(window.window.start, part.arm or "", part.version or 0)
        cohort = self.cohorts.at(key, window.window, part.arm or "external", part.version)
        before = cohort.ledger.first
        cohort.ledger.close_numbers(part.events, basis, LogRanges.of_offsets([(log, offset)]))
        self.changes.cohorts.add(key)
        self.changes.touched = True
        found = self._estimate(cohort, knowledge, now)
        if found is not None and before is None and cohort.ledger.first is not None:
            self._judge_estimate(found, knowledge, now)

    def _judge_estimate(self, found: PerformanceEstimated, knowledge: Knowledge, now: datetime) -> None:
        monitor = knowledge.spec.monitors.estimation
        if monitor is None or not monitor.alert or found.arm not in {"champion", "external"}:
            return
        for asked in estimation.may_break(found, knowledge.spec.monitors.performance):
            self._raise(alerts.poor_estimate(self._stamp(now), found, asked), knowledge, None, None)

    def reference_unusable(
        self, version: int, reason: str, window: WindowSummarised, knowledge: Knowledge, now: datetime
    ) -> None:
        """The champion's reference cannot be read: say so, once for each version."""
        key = f"reference|{version}"
        if key not in self.state.drift.reported:
            self.state.drift.reported.append(key)
            self._raise(alerts.no_reference(self._stamp(now), version, reason, window), knowledge, None, None)
