"""Monitoring's own metrics."""

from __future__ import annotations

from tailrace_contracts.events import AlertRaised, ArmsCompared, PerformanceEstimated
from tailrace_monitoring.domain.scores import Score
from tailrace_monitoring.domain.state import Changes
from tailrace_monitoring.domain.watched import ModelWatch
from tailrace_monitoring.domain.windows import shown
from tailrace_runtime.metrics import Instrument, Metrics

_TEST = ("model", "column", "statistic")

INSTRUMENTS = (
    Instrument("tailrace_watched_examples", "gauge", "Labelled examples seen of a model.", ("model",)),
    Instrument(
        "tailrace_arm_accuracy", "gauge", "Accuracy of a version, since it first answered.", ("model", "arm", "version")
    ),
    Instrument(
        "tailrace_arm_recent_accuracy", "gauge", "Accuracy on the newest 500 answers.", ("model", "arm", "version")
    ),
    *(
        Instrument(f"tailrace_arm_{name}", "gauge", f"{text} of a regression's version.", ("model", "arm", "version"))
        for name, text in (
            ("mae", "Mean absolute error"),
            ("rmse", "Root mean squared error"),
            ("bias", "Mean of prediction less label"),
            ("recent_mae", "Exponentially weighted mean absolute error"),
        )
    ),
    Instrument(
        "tailrace_comparison_difference",
        "gauge",
        "Champion's loss less candidate's: positive where the candidate is better.",
        ("model", "champion", "candidate"),
    ),
    Instrument("tailrace_drift_distance", "gauge", "Distance of the newest closed window.", _TEST),
    Instrument("tailrace_drift_threshold", "gauge", "What the distance may reach by chance.", _TEST),
    Instrument(
        "tailrace_estimated_performance",
        "gauge",
        "Performance of the cohort that was estimated last: `bound` is value, lower or upper.",
        ("model", "arm", "version", "figure", "bound"),
    ),
    Instrument("tailrace_alerts_total", "counter", "Alerts raised that nobody has muted.", ("model", "kind")),
    Instrument("tailrace_muted_alerts_total", "counter", "Alerts raised that somebody has muted.", ("model", "kind")),
)


def _figures(score: Score) -> dict[str, float]:
    """The gauges of one version's answers: of classes, or of numbers."""
    if score.accuracy is None or score.recent_accuracy is None:
        return {f"tailrace_arm_{name}": value for name, value in score.metrics.items()}
    return {"tailrace_arm_accuracy": score.accuracy, "tailrace_arm_recent_accuracy": score.recent_accuracy}


class PrometheusMeter:
    """Reports sittings to the service's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._arms: dict[tuple[str, str], str] = {}

    def report(self, watch: ModelWatch, changes: Changes) -> None:
        """Where a model stands after a sitting, and what the sitting changed (it has been stored)."""
        model = watch.model
        self._metrics.gauge("tailrace_watched_examples", watch.state.examples, model=model)
        self._report_arms(watch)
        for event in changes.events:
            if isinstance(event, AlertRaised):
                counter = "tailrace_muted_alerts_total" if event.muted_by else "tailrace_alerts_total"
                self._metrics.count(counter, model=model, kind=event.kind)
            elif isinstance(event, ArmsCompared):
                versions = {"champion": str(event.champion), "candidate": str(event.candidate)}
                self._metrics.gauge("tailrace_comparison_difference", event.mean_difference, model=model, **versions)
            elif isinstance(event, PerformanceEstimated):
                self._report_estimate(event)
        for window in changes.distances:
            for measured in shown(window.measured):
                labels = {"model": model, "column": measured.column, "statistic": measured.statistic}
                self._metrics.gauge("tailrace_drift_distance", measured.distance, **labels)
                self._metrics.gauge("tailrace_drift_threshold", measured.threshold, **labels)

    def _report_estimate(self, found: PerformanceEstimated) -> None:
        labels = {"model": found.model, "arm": found.arm, "version": str(found.version or "")}
        for figure, each in found.estimates.items():
            for bound, value in (("value", each.value), ("lower", each.lower), ("upper", each.upper)):
                self._metrics.gauge("tailrace_estimated_performance", value, figure=figure, bound=bound, **labels)

    def _report_arms(self, watch: ModelWatch) -> None:
        """Each version stands under the arm that it is in now, and no longer under the one before."""
        for name, score in watch.state.scores.items():
            labels = {"model": watch.model, "version": str(score.version or "")}
            before = self._arms.get((watch.model, name))
            if before is not None and before != score.arm:
                for gauge in _figures(score):
                    self._metrics.forget(gauge, arm=before, **labels)
            self._arms[watch.model, name] = score.arm
            for gauge, value in _figures(score).items():
                self._metrics.gauge(gauge, value, arm=score.arm, **labels)
