"""Every metric that the runtime reports, with its help text, and the registry that one service reports them from.

The catalogue below is the documentation. A service adds instruments of its own when it builds its `Metrics`; all share
the label `service`. Nothing is registered at import, and nothing in the process-wide default registry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric. `labels` come after `service`, which every metric has."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = SECONDS


CATALOGUE: tuple[Instrument, ...] = (
    Instrument(
        "tailrace_events_total",
        "counter",
        "Records handled, by outcome: done, parked (in dead-letters) or retried.",
        ("role", "topic", "outcome"),
    ),
    Instrument(
        "tailrace_batch_seconds", "histogram", "Handler, publication and commit of one batch.", ("role", "topic")
    ),
    Instrument(
        "tailrace_consumer_lag",
        "gauge",
        "Records on the log that the role has not read yet.",
        ("role", "topic", "partition"),
    ),
    Instrument("tailrace_dead_letters_total", "counter", "Records parked, by reason code.", ("role", "topic", "code")),
    Instrument(
        "tailrace_records_removed_total",
        "counter",
        "Records that retention removed before the role had read them.",
        ("role", "topic"),
    ),
    Instrument("tailrace_rebalances_total", "counter", "Times that partitions were handed out anew.", ("role",)),
    Instrument("tailrace_commits_lost_total", "counter", "Commits refused because of a rebalance.", ("role",)),
    Instrument("tailrace_partitions_assigned", "gauge", "Partitions that this process reads.", ("role",)),
    Instrument("tailrace_published_total", "counter", "Records that the broker acknowledged.", ("topic",)),
    Instrument("tailrace_publish_seconds", "histogram", "From handing records over to the last acknowledgement."),
    Instrument("tailrace_producer_errors_total", "counter", "Failed deliveries, by error.", ("error",)),
    Instrument("tailrace_producer_rebuilds_total", "counter", "Times that the producer was replaced after an error."),
    Instrument("tailrace_follower_records_total", "counter", "Records that followers applied.", ("topic",)),
    Instrument(
        "tailrace_follower_undecodable_total", "counter", "Records that followers could not decode.", ("topic",)
    ),
    Instrument("tailrace_outbox_depth", "gauge", "Rows of the outbox that are not published yet."),
    Instrument("tailrace_outbox_published_total", "counter", "Rows of the outbox published."),
    Instrument("tailrace_ready", "gauge", "1 when /readyz says so."),
)


class Metrics:
    """One service's metrics, in a registry of its own."""

    def __init__(self, service: str = "tailrace", extra: Iterable[Instrument] = (), *, process: bool = False) -> None:
        self.service = service
        self.registry = CollectorRegistry(auto_describe=True)
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._series: dict[tuple[Any, ...], Any] = {}
        for instrument in (*CATALOGUE, *extra):
            self._add(instrument)
        if process:
            ProcessCollector(registry=self.registry)
            GCCollector(registry=self.registry)

    def _add(self, instrument: Instrument) -> None:
        labels = ("service", *instrument.labels)
        if instrument.kind == "counter":
            self._counters[instrument.name] = Counter(instrument.name, instrument.help, labels, registry=self.registry)
        elif instrument.kind == "gauge":
            self._gauges[instrument.name] = Gauge(instrument.name, instrument.help, labels, registry=self.registry)
        else:
            self._histograms[instrument.name] = Histogram(
                instrument.name, instrument.help, labels, registry=self.registry, buckets=instrument.buckets
            )

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        self._one(self._counters, name, labels).inc(amount)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._gauges[name].labels(service=self.service, **labels).set(value)

    def forget(self, name: str, **labels: str) -> None:
        """Take one series of a gauge away: what it measured is no longer ours."""
        gauge = self._gauges[name]
        gauge.remove(self.service, *(labels[label] for label in gauge._labelnames[1:]))  # noqa: SLF001

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Record one measurement in a histogram."""
        self._one(self._histograms, name, labels).observe(value)

    def _one(self, instruments: Mapping[str, Any], name: str, labels: dict[str, str]) -> Any:
        """The series of these labels. Remembered, because looking one up costs several times what counting costs."""
        key = (name, *labels.items())
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = instruments[name].labels(service=self.service, **labels)
        return found

    def value(self, name: str, **labels: str) -> float:
        """What a counter or gauge stands at (0 before its first use): for tests and status pages."""
        found = self.registry.get_sample_value(name, {"service": self.service, **labels})
        return 0.0 if found is None else found

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)
