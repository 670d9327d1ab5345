"""One model under watch: what it remembers, and what every kind of fact about it needs.

`ModelWatch` is the aggregate that a transaction loads, changes and stores. What has to outlive a process stands in
`state`, in the trail and in the cohorts; the rest (the live detector, what was published when) can be built again from
them. All changes of one call are gathered in `changes`, so that the store writes them, and the events that announce
them, at once. A record at or below the offset that its log has been applied through changes nothing.

What comes in is told elsewhere: labelled examples in examples.py, the cohorts that they close in closed_cohorts.py,
measurements of serving in measurements.py, windows in window_judgement.py, and the estimates of their performance in window_estimates.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from tailrace_contracts.events import AlertRaised, PerformanceEstimated, WindowSummarised
from tailrace_contracts.ranges import Log
from tailrace_contracts.spec import ConceptDriftMonitor, Label, ModelSpec, NumericalLabel
from tailrace_monitoring.domain import alerts, estimation
from tailrace_monitoring.domain.cohort_book import CohortBook
from tailrace_monitoring.domain.cohorts import Cohort
from tailrace_monitoring.domain.comparison import Comparison
from tailrace_monitoring.domain.concept import LONGEST, Detector, ErrorAlarm, Scaled
from tailrace_monitoring.domain.knowledge import Knowledge
from tailrace_monitoring.domain.new_champion import groups_worse_off, worse_for
from tailrace_monitoring.domain.retraining import Cause, Pending, Situation
from tailrace_monitoring.domain.state import Changes, ModelState, Placed, Tools
from tailrace_monitoring.domain.trail import Trail
from tailrace_monitoring.domain.windows import QUALITY
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
        self.tools = tools
        self._alarm: ErrorAlarm | None = None
        self._alarm_spec: ConceptDriftMonitor | None = None
        self._published: datetime | None = None
        self._seen = {name: self._marks(name) for name in state.marks}

    # ------------------------------------------------------------ what has been applied

    def _marks(self, name: str) -> HighWater:
        seen = HighWater()
        identities = [[step.prediction_id, step.label_revision] for step in self.trail.since(0)]
        seen.load({"marks": self.state.marks.get(name, []), "identities": identities})
        return seen

    def is_new(self, log: Log, offset: int) -> bool:
        """Whether a record has not been applied yet; from now on it has."""
        name = f"{log.topic}/{log.partition}"
        if offset <= self.state.through.get(name, -1):
            return False
        self.state.through[name] = offset
        self.changes.touched = True
        return True

    def says_more(self, window: WindowSummarised) -> bool:
        """Whether a window was derived from no less than before: a process that slept may publish an old state late."""
        extents, name = self.state.extents, window.window.start.isoformat()
        if window.derived_from.extent < extents.get(name, 0):
            return False
        extents[name] = window.derived_from.extent
        for old in sorted(extents)[:-REMEMBERED_WINDOWS]:
            del extents[old]
        return True

    def is_new_example(self, placed: Placed) -> bool:
        """Whether an example has not been applied yet, not even as one that was published again; from now on it has."""
        if not self.is_new(placed.log, placed.offset):
            return False
        name = f"{placed.log.topic}/{placed.log.partition}"
        seen = self._seen.get(name) or self._seen.setdefault(name, self._marks(name))
        example = placed.example
        return seen.admit(example.trigger, (example.prediction_id, example.label_revision))

    def keep_marks(self) -> None:
        """Put into the state which examples have been applied."""
        self.state.marks = {name: seen.marks() for name, seen in self._seen.items()}

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
        detector = self.tools.detector(monitor)
        numerical = isinstance(label, NumericalLabel)
        return Scaled(detector, monitor.detector, monitor.min_examples) if numerical else detector

    def hear(self, number: int, error: float, knowledge: Knowledge, now: datetime) -> None:
        """Let the alarm hear of the champion's error in the example of this number; raise the alert where it sounds."""
        if self._alarm is None:
            return
        alarm = self._alarm.observe(number, error)
        self.state.alarm_from = self._alarm.start or self.state.examples + 1
        if alarm is None or self._alarm_spec is None:
            return
        steps = list(self.trail.since(alarm.since))
        raised = alerts.concept_drift(self.stamp(now), self.state.champion, alarm, steps, knowledge.spec)
        self.state.regime = steps[0].time
        for comparison in self.state.comparisons.values():
            comparison.restart()
        self.raise_alert(raised, knowledge, "concept-drift", alarm.since)

    # ------------------------------------------------------------ alerts

    def stamp(self, now: datetime) -> alerts.Stamp:
        """What a new alert is marked with."""
        return alerts.Stamp(self.tools.new_id(), self.model, now)

    def _new_run(self) -> str:
        return f"run-{self.tools.new_id()}"

    def raise_alert(self, alert: AlertRaised, knowledge: Knowledge, cause: Cause | None, since: int | None) -> None:
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
        self.changes.events.append(
            alert.model_copy(update={"led_to": led_to, "deployment": knowledge.sequence or None})
        )
        self.changes.touched = True

    # ------------------------------------------------------------ cohorts, training, publication

    def measure(self, cohort: Cohort, knowledge: Knowledge, now: datetime) -> None:
        """Publish how a cohort did on the labels so far, and what that makes of its estimate."""
        self.cohorts.unmeasured.discard(cohort.key)
        monitor = knowledge.spec.monitors.fairness
        self.changes.events.append(cohort.measured(self.tools.new_id(), self.model, monitor, now))
        self.estimate(cohort, knowledge, now)

    def estimate(self, cohort: Cohort, knowledge: Knowledge, now: datetime) -> PerformanceEstimated | None:
        """Publish what the cohort's performance is estimated to be, where there is something to tell it from."""
        monitor = knowledge.spec.monitors.estimation
        if monitor is None:
            return None
        situation = estimation.Situation(self.tools.new_id(), self.model, self.state.regime, self.state.trust, now)
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
        return self._has_news(knowledge) or self.state.retraining.waits(knowledge.spec, self._situation(knowledge, now))

    def _has_news(self, knowledge: Knowledge) -> bool:
        gates, comparisons = knowledge.spec.rollout.gates, self.state.comparisons.values()
        return bool(self.cohorts.unmeasured) or any(each.has_news(gates) for each in comparisons)

    def publish(self, knowledge: Knowledge, now: datetime) -> None:
        """Publish comparisons and open cohorts, at most once a second, and what cannot wait at once."""
        due = self._published is None or now - self._published >= PUBLISH_EVERY
        rollout, news = knowledge.spec.rollout, self._has_news(knowledge)
        for comparison in self.state.comparisons.values():
            if comparison.has_news(rollout.gates) and (due or comparison.is_urgent(rollout)):
                self._judge_groups(comparison, knowledge, now)
                self.changes.events.append(comparison.publish(self.tools.new_id(), knowledge.spec, now))
                self.changes.touched = True
        if due and news:
            for cohort in self.cohorts.news():
                self.measure(cohort, knowledge, now)
        if due:
            self._published = now

    def _judge_groups(self, comparison: Comparison, knowledge: Knowledge, now: datetime) -> None:
        """Tell of groups that fare worse with a new champion, once for each attribute."""
        standby = knowledge.deployment.standby if knowledge.deployment else None
        if comparison.candidate != standby or not knowledge.spec.rollout.returns_on("fairness"):
            return
        for found in groups_worse_off(comparison, knowledge.spec):
            key = f"version {comparison.champion}|groups|{found.attribute}"
            if key not in self.state.breached:
                raised = worse_for(self.stamp(now), found, comparison, knowledge)
                self.state.breached[key] = raised.since
                self.raise_alert(raised, knowledge, None, None)
