"""Capture: what happens to answers when the broker is away, slow, or refuses, and when the process stops."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tailrace_contracts.events import PredictionMade
from tailrace_serving import app
from tailrace_serving.adapters.ledger import MODELS, FileLedger, NoLedger
from tailrace_serving.capture import PROBE_EVENTS, Capture
from tailrace_serving.domain.arms import ArmAnswer, Arms, Loaded, Member
from tailrace_serving.domain.features import FeatureRules
from tailrace_serving.handlers import Inference
from tailrace_serving.settings import ServingSettings
from tailrace_serving.testing import (
    RAIN,
    THEN,
    FakeAnswer,
    FakeArtefacts,
    FakeEventLog,
    FakeMeter,
    FakePredictor,
    rain_spec,
)
from tailrace_testing import eventually

SPEC = rain_spec()
ONE = Loaded(1, None, "torch", "1", FakePredictor())
ANSWER: ArmAnswer = FakeAnswer(1, 0.75)


def inference_of(shadow: FakePredictor) -> Callable[[int], Inference]:
    """Answered rows of one deployment with a shadow."""
    rules = FeatureRules(SPEC)
    arms = Arms("rain", SPEC, rules, ONE, shadows=(Loaded(2, None, "torch", "2", shadow),))
    return lambda number: Inference(
        arms, Member("champion", ONE), rules.row(RAIN), ANSWER, str(number), None, THEN, 0.1
    )


def settings(**changes: float) -> ServingSettings:
    """Settings that wait for nothing."""
    fast: dict[str, float] = {"capture_linger_seconds": 0, "capture_retry_seconds": 0.01, "capture_flush_seconds": 0.2}
    return ServingSettings.model_validate({**fast, **changes})


def capture_of(
    settings: ServingSettings, events: FakeEventLog, meter: FakeMeter, ledger: FileLedger | None = None
) -> Capture:
    """A capture that explains nothing."""
    return app.capture_of(settings, events, meter, app.explanations_of(settings, FakeArtefacts(), meter), ledger)


async def test_broker_away_and_back_loses_nothing() -> None:
    """If it failed, a restart of the broker would leave holes in the record."""
    events, meter = FakeEventLog(), FakeMeter()
    capture = capture_of(settings(), events, meter)
    await capture.start()
    events.away = True
    one = inference_of(FakePredictor())
    await capture.take([one(number) for number in range(100)])
    await eventually(lambda: len(capture.buffer) == 100 and len(events.attempts) > 3, 5, 0.005)
    assert set(events.attempts[1:]) == {PROBE_EVENTS}, "attempts would be felt by whoever asks meanwhile"
    events.away = False
    await eventually(lambda: len(events.events) == 100, 5, 0.005)
    await capture.stop()
    assert [event.key for event in events.events] == [str(number).encode() for number in range(100)]
    assert meter.counts["tailrace_captured_total", "rain"] == 100
    assert ("tailrace_capture_lost_total", "rain") not in meter.counts


async def test_full_buffer_counts_what_it_loses() -> None:
    """If it failed, lost predictions would go unnoticed, or the process would run out of memory."""
    events, meter = FakeEventLog(), FakeMeter()
    events.away = True
    capture = capture_of(settings(capture_max_events=30), events, meter)
    await capture.start()
    one = inference_of(FakePredictor())
    for number in range(100):
        await capture.take([one(number)])
    await eventually(lambda: meter.counts.get(("tailrace_capture_lost_total", "rain")) == 70, 5, 0.005)
    events.away = False
    await capture.stop()
    assert len(events.events) == 30


async def test_stop_flushes_and_counts_the_rest() -> None:
    """If it failed, a stop would lose predictions in silence, or hang while the broker is away."""
    events, meter = FakeEventLog(), FakeMeter()
    capture = capture_of(settings(), events, meter)
    await capture.start()
    one = inference_of(FakePredictor())
    await capture.take([one(number) for number in range(700)])
    await capture.stop()
    assert len(events.events) == 700
    events.away = True
    await capture.start()
    await capture.take([one(number) for number in range(50)])
    await asyncio.wait_for(capture.stop(), 5)
    assert meter.counts["tailrace_captured_total", "rain"] == 700
    assert meter.counts["tailrace_capture_lost_total", "rain"] == 50


async def test_overload_sheds_shadows_and_keeps_the_served_answers() -> None:
    """If it failed, a slow shadow would cost predictions their record."""
    events, meter, shadow = FakeEventLog(), FakeMeter(), FakePredictor(0.25)
    capture = capture_of(settings(max_pending_rows=40), events, meter)
    await capture.start()
    one = inference_of(shadow)
    await capture.take([one(number) for number in range(100)])
    await eventually(lambda: len(events.events) == 100, 5, 0.005)
    await capture.stop()
    made = [PredictionMade.model_validate_json(event.value) for event in events.events]
    assert {each.prediction_id for each in made} == {str(number) for number in range(100)}
    assert sum(not each.shadows for each in made) == 60
    assert meter.counts["tailrace_shadows_shed_total", "rain"] == 60
    assert len(shadow.asked) == 40


async def test_failing_shadow_is_left_out() -> None:
    """If it failed, one broken shadow would stop the capture of every prediction."""
    events, meter = FakeEventLog(), FakeMeter()
    capture = capture_of(settings(), events, meter)
    await capture.start()
    await capture.take([inference_of(FakePredictor(fails=True))(1)])
    await eventually(lambda: len(events.events) == 1, 5, 0.005)
    await capture.stop()
    assert PredictionMade.model_validate_json(events.events[0].value).shadows == ()
    assert meter.counts["tailrace_arm_failures_total", "rain", "shadow"] == 1


async def test_refused_event_does_not_hold_up_the_others() -> None:
    """If it failed, one row too large for the broker would block every prediction behind it."""
    events, meter = FakeEventLog(), FakeMeter()
    events.refuses = b"3"
    capture = capture_of(settings(), events, meter)
    await capture.start()
    one = inference_of(FakePredictor())
    await capture.take([one(number) for number in range(6)])
    await eventually(lambda: len(events.events) == 5, 5, 0.005)
    await capture.stop()
    assert meter.counts["tailrace_capture_lost_total", "rain"] == 1
    assert meter.counts["tailrace_captured_total", "rain"] == 5


async def test_what_a_killed_process_held_is_counted_by_the_next(tmp_path: Path) -> None:
    """If it failed, every kill would lose predictions that no counter knows of."""
    events, meter, path = FakeEventLog(), FakeMeter(), tmp_path / "state" / "capture.ledger"
    first = FileLedger(path)
    capture = capture_of(settings(), events, meter, first)
    await capture.start()
    one = inference_of(FakePredictor())
    await capture.take([one(number) for number in range(100)])
    await eventually(lambda: len(events.events) == 100, 5, 0.005)
    await eventually(lambda: not capture.buffer, 5, 0.005)
    events.away = True
    await capture.take([one(number) for number in range(100, 130)])
    await eventually(lambda: len(capture.buffer) == 30, 5, 0.005)
    with pytest.raises(OSError, match="unavailable"):
        FileLedger(path)
    copy = tmp_path / "as-it-was-when-killed.ledger"
    copy.write_bytes(path.read_bytes())
    await capture.stop()

    second = FakeMeter()
    after = capture_of(settings(), FakeEventLog(), second, FileLedger(copy))
    await after.start()
    await after.stop()
    assert second.counts == {("tailrace_capture_lost_total", "rain"): 30}
    assert FileLedger(tmp_path / "new.ledger").left == {}


def test_without_room_for_a_ledger_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it failed, a disk that is full would kill serving with a bus error, again and again, when it counts its first answer."""
    monkeypatch.setattr(os, "pwrite", lambda _descriptor, data, _offset: len(data) // 2)
    with pytest.raises(OSError, match="No space left"):
        FileLedger(tmp_path / "ledger")
    assert isinstance(app.ledger_of(ServingSettings(state_dir=tmp_path)), NoLedger)


def test_a_ledger_that_is_cut_short_or_of_other_bytes_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """If it failed, a damaged file would keep serving from starting, or make losses up in the wrong direction."""
    path = tmp_path / "ledger"
    first = FileLedger(path)
    for model in ("rain", "snow"):
        first.take(model, 3)
    whole = path.read_bytes()
    for number, (damaged, left) in enumerate(
        [(whole[:150], {"rain": 3}), (b"", {}), (b"\xff" * 200, {}), (whole + b"more", {"rain": 3, "snow": 3})]
    ):
        copy = tmp_path / str(number)
        copy.write_bytes(damaged)
        assert FileLedger(copy).left == left


def test_a_ledger_keeps_models_apart(tmp_path: Path) -> None:
    """If it failed, losses would be counted for the wrong model, or a long name would break serving."""
    path = tmp_path / "ledger"
    ledger = FileLedger(path)
    for number in range(MODELS + 10):
        ledger.take(f"model-{number}", number)
    ledger.take("long" * 100, 7)
    ledger.settle("model-5", 5)
    ledger.settle("model-9", 4)
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    left = FileLedger(copy).left
    assert (left["model-4"], left.get("model-5"), left["model-9"]) == (4, None, 5)
    assert sum(left.values()) == sum(range(MODELS + 10)) + 7 - 9
