"""The runtime's small parts: ids, marks, settings, headers, traces, metrics, limits, logs."""

import json
import logging
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tailrace_contracts.events import DeploymentChanged, EventParked, decode
from tailrace_contracts.ranges import Log, Trigger
from tailrace_runtime.consumer import ConsumerRole, DeadLetterLimit, Outcome, Parked, Stateless
from tailrace_runtime.deadletters import DeadLetterRate, dead_letter, original
from tailrace_runtime.errors import DeadLetterLimitExceeded, RetryLater
from tailrace_runtime.handling import Handling
from tailrace_runtime.health import Health, installed
from tailrace_runtime.highwater import REACH, HighWater
from tailrace_runtime.ids import at, new_id
from tailrace_runtime.logs import Dampened
from tailrace_runtime.metrics import CATALOGUE, Instrument, Metrics
from tailrace_runtime.records import Record, outgoing
from tailrace_runtime.rolemeter import RoleMeter
from tailrace_runtime.service import settings_sentence
from tailrace_runtime.settings import ServiceSettings
from tailrace_runtime.testing import FixedClock, RecordingProducer, record
from tailrace_runtime.tracing import continued_from, trace_headers, trace_id

TRACE = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


def trigger(offset: int, partition: int = 0) -> Trigger:
    """A record of the labels."""
    return Trigger(topic="labels", partition=partition, offset=offset)


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_ids_sort_by_time(first_ms: int, second_ms: int, randomness: bytes) -> None:
    """Audit entries and runs would not sort by when they were made."""
    first, second = at(first_ms, randomness), at(second_ms, randomness)
    assert (first < second) == (first_ms < second_ms)
    assert UUID(first).version == 7


def test_new_ids_differ() -> None:
    """Two events would pass for one."""
    assert len({new_id() for _ in range(1000)}) == 1000


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20))))
def test_a_repeated_run_of_triggers_changes_nothing(run: list[tuple[int, int]]) -> None:
    """A restarted publisher's repetition would be applied twice."""
    ordered = sorted(run, key=lambda pair: pair[1])
    marks = HighWater()
    admitted = [pair for pair in ordered if marks.admit(trigger(pair[1], pair[0]))]
    assert sorted(admitted) == sorted(set(run))
    assert not any(marks.admit(trigger(offset, partition)) for partition, offset in ordered)


def test_identities_are_remembered_up_to_the_capacity() -> None:
    """The same correction under another trigger would be learned twice, or memory would grow without end."""
    marks = HighWater(capacity=2)
    assert marks.admit(trigger(1), ("first", 0))
    assert not marks.admit(trigger(2), ("first", 0))
    assert marks.admit(trigger(3), ("second", 0))
    assert marks.admit(trigger(4), ("third", 0))
    assert marks.admit(trigger(5), ("first", 0)), "the oldest identity has been forgotten"


def test_the_identities_of_a_partition_outlast_the_others() -> None:
    """While a killed joiner is not replaced, the others go on; its last examples would then be learned twice."""
    marks = HighWater(capacity=2)
    assert marks.admit(trigger(1, partition=0), ("first", 0))
    for offset in range(10):
        assert marks.admit(trigger(offset, partition=1), (f"other {offset}", 0))
    assert not marks.admit(trigger(2, partition=0), ("first", 0))


def test_identities_of_older_dumps_count_for_every_partition() -> None:
    """After an upgrade a restarted reader would apply its newest facts once more."""
    marks = HighWater()
    marks.load({"marks": [], "identities": [["id", 1]]})
    assert not marks.admit(trigger(5, partition=3), ("id", 1))
    assert marks.admit(trigger(6, partition=3), ("id", 2))


def test_an_older_revision_is_old() -> None:
    """A corrected label would be taken back when its first value came again under another trigger."""
    marks = HighWater()
    assert marks.admit(trigger(1), ("id", 1))
    assert not marks.admit(trigger(2), ("id", 0))
    assert marks.admit(trigger(3), ("id", 2))


def test_a_fact_that_another_order_put_behind_is_new() -> None:
    """A label's example would be lost when the join died and met its two topics in another order."""
    marks = HighWater()
    assert marks.admit(trigger(REACH + 5), ("first", 0))
    assert marks.admit(trigger(6), ("second", 0)), "it had another trigger in the life before"
    assert not marks.admit(trigger(6), ("second", 0))
    assert not marks.admit(trigger(5), ("third", 0)), "so far behind, it is an echo"
    assert marks.through(Log("labels", 0)) == REACH + 5


def test_marks_survive_a_dump_as_json() -> None:
    """A restarted service would forget what it has applied."""
    marks, again = HighWater(), HighWater()
    marks.admit(trigger(7), ("id", 0))
    marks.admit(trigger(9, partition=3))
    again.load(json.loads(json.dumps(marks.dump())))
    assert (again.through(Log("labels", 0)), again.through(Log("labels", 3))) == (7, 9)
    assert not again.admit(trigger(8), ("id", 0))


class Full(Stateless):
    """A state whose disk is full, then not."""

    full = True

    async def tick(self) -> Outcome:
        """Write, if there is room."""
        if self.full:
            raise RetryLater("the disk is full")
        return Outcome()


async def test_a_role_whose_tick_is_put_off_is_not_ready() -> None:
    """A full disk would be seen in the log only, until memory is full too."""
    state, health = Full(), Health()
    handling = Handling(
        ConsumerRole("archive", {}, state),
        "ingestion",
        producer=RecordingProducer(),
        meter=RoleMeter(Metrics("ingestion"), "archive"),
        clock=FixedClock(),
        finish=lambda _log, _through: None,
        retries=lambda _where: pytest.fail("a tick has no retries"),
    )
    with installed(health):
        await handling.tick()
        assert health.readiness()[1]["waiting"] == {"tick of role archive": "the disk is full"}
        state.full = False
        await handling.tick()
    assert health.readiness()[0]


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment could not say where its broker is or which roles it wants."""
    monkeypatch.setenv("TAILRACE_ROLES", "validate, join")
    monkeypatch.setenv("TAILRACE_KAFKA_BOOTSTRAP", "kafka:9092")
    monkeypatch.setenv("TAILRACE_DATABASE_URL", "postgresql://u:secret@db/x")
    settings = ServiceSettings()
    assert settings.roles == ("validate", "join")
    assert settings.kafka_bootstrap == "kafka:9092"
    assert "secret" not in repr(settings)
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]  # that is what is tested


def test_wrong_settings_make_one_sentence() -> None:
    """A person would have to read a validation library's report."""
    with pytest.raises(ValidationError) as caught:
        ServiceSettings.model_validate({"port": 70_000, "instance": "a b"})
    sentence = settings_sentence(caught.value)
    assert sentence.startswith("the settings are not usable: TAILRACE_PORT is 70000: input should be less than")
    assert "TAILRACE_INSTANCE is 'a b'" in sentence
    assert "\n" not in sentence


def deployed() -> DeploymentChanged:
    """Some event."""
    moment = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
    return DeploymentChanged(model="rain", sequence=1, spec_revision=1, reason="r", time=moment)


def test_an_outgoing_event_is_a_cloudevent() -> None:
    """Other systems could not route or deduplicate what Tailrace publishes."""
    published = outgoing(deployed(), "deployments", "rain", partition=0, event_id="one")
    headers = dict(published.headers)
    assert headers["ce_id"] == b"one"
    assert headers["ce_type"] == b"tailrace.deployment-changed"
    assert headers["ce_time"] == b"2025-01-02T03:04:05Z"
    assert headers["ce_specversion"] == b"1.0"
    assert headers["content-type"] == b"application/json"
    assert (published.key, published.partition) == (b"rain", 0)
    assert decode(published.value or b"") == deployed()
    assert "traceparent" not in headers


def test_a_trace_that_comes_in_goes_out_again() -> None:
    """One inference could not be followed over the services."""
    assert trace_id() is None
    with continued_from([("ce_id", b"1"), TRACE]):
        assert trace_id() == "0af7651916cd43dd8448eb211c80319c"
        assert TRACE in outgoing(deployed(), "deployments", "rain").headers
    assert trace_headers() == ()
    with continued_from([("traceparent", b"\xff nonsense")]):
        assert trace_headers() == ()


@given(
    key=st.none() | st.binary(max_size=20),
    value=st.none() | st.binary(max_size=50),
    headers=st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=3),
)
def test_a_parked_record_can_be_replayed_exactly(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    """A repaired deployment could not take up what had been parked."""
    parked = Record("labels", 2, 7, 1234, key, value, tuple(headers))
    letter = dead_letter(Parked(parked, "bad", "why"), service="s", role="r", attempts=2, now=FixedClock().now())
    event = decode(letter.value or b"")
    assert isinstance(event, EventParked)
    assert original(event) == parked
    assert letter.key == key
    assert event.attempts == 2


def test_the_dead_letter_limit_forgets_what_is_long_ago() -> None:
    """One bad hour would stop a service days later; or a steady stream of poison never would."""
    rate = DeadLetterRate(DeadLetterLimit(share=0.5, records=10, window_seconds=60))
    rate.add(0, 4, 4)
    rate.add(30, 6, 1)
    rate.add(70, 10, 4)
    rate.add(71, 10, 5)
    with pytest.raises(DeadLetterLimitExceeded, match="21 of the last 36 records are poison, over the limit of 50%"):
        rate.add(72, 10, 11)


def test_metrics_have_names_help_and_one_label_in_common() -> None:
    """A dashboard would show nothing, or something else after the next release."""
    metrics = Metrics("svc", [Instrument("tailrace_extra_total", "counter", "More.", ("model",))])
    metrics.count("tailrace_extra_total", 2, model="rain")
    metrics.gauge("tailrace_outbox_depth", 3)
    metrics.observe("tailrace_publish_seconds", 0.02)
    text = metrics.render().decode()
    assert 'tailrace_extra_total{model="rain",service="svc"} 2.0' in text
    assert metrics.value("tailrace_outbox_depth") == 3
    assert all(instrument.help and instrument.name.startswith("tailrace_") for instrument in CATALOGUE)
    assert Metrics("other").value("tailrace_outbox_depth") == 0


def test_a_library_that_repeats_itself_is_held_back() -> None:
    """A broker's outage would fill the disk with logs."""
    now = 0.0
    dampened = Dampened(("aiokafka",), monotonic=lambda: now)

    def line(name: str) -> logging.LogRecord:
        return logging.LogRecord(name, logging.WARNING, "", 0, "cannot connect to %s", ("node",), None)

    assert dampened.filter(line("aiokafka.conn"))
    assert not dampened.filter(line("aiokafka.conn"))
    assert dampened.filter(line("ours"))
    now = 6.0
    late = line("aiokafka.conn")
    assert dampened.filter(late)
    assert late.getMessage() == "cannot connect to node (and 1 more like it)"


def test_logs_are_json_with_service_and_trace() -> None:
    """A log search could not find what one request caused."""
    program = """
import logging, structlog
from tailrace_runtime.logs import configure
from tailrace_runtime.settings import ServiceSettings
from tailrace_runtime.tracing import continued_from
configure(ServiceSettings(instance="7"), "svc")
with continued_from([("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]):
    structlog.get_logger("mine").info("said", model="rain")
logging.getLogger("foreign").warning("also %s", "said")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    ours, foreign = (json.loads(line) for line in ended.stderr.splitlines())
    expected: dict[str, Any] = {"event": "said", "model": "rain", "service": "svc", "instance": "7", "level": "info"}
    assert expected.items() <= ours.items()
    assert ours["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert foreign["event"] == "also said"
    assert foreign["service"] == "svc"


def test_a_record_knows_its_place() -> None:
    """An error would not say which record it is about."""
    parked = record(b"v", "labels", offset=5, partition=2, headers=(("h", b"1"),))
    assert str(parked) == "labels[2]@5"
    assert parked.header("h") == b"1"
    assert parked.header("none") is None
    assert parked.trigger() == trigger(5, partition=2)
