"""How versions answer: what is counted where, and that every call is told once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tailrace_contracts.events import ArmMeasured, ServingMeasured, decode
from tailrace_runtime.errors import DeliveryFailed, DeliveryRefused
from tailrace_runtime.records import Outgoing
from tailrace_serving.domain.arms import Arms, Loaded, Table
from tailrace_serving.domain.deployment import Facts, arranged, plan
from tailrace_serving.domain.features import FeatureRules
from tailrace_serving.domain.question import Question
from tailrace_serving.domain.refusal import Refused
from tailrace_serving.domain.tally import Tally
from tailrace_serving.handlers import Desk, answer, inferences, with_others
from tailrace_serving.measuring import Measuring
from tailrace_serving.testing import (
    RAIN,
    FakeMeter,
    FakePredictor,
    FixedClock,
    applied,
    deployed,
    digest,
    learn,
    rain_spec,
    versioned,
)

SPEC = rain_spec()
RULES = FeatureRules(SPEC)
DESK = Desk(FixedClock(), lambda: "an-id", FakeMeter())


class Sender:
    """A producer that keeps what it is given, or is away, or refuses."""

    def __init__(self) -> None:
        self.sent: list[ServingMeasured] = []
        self.fault: Exception | None = None

    async def send_all(self, records: Sequence[Outgoing]) -> None:
        """Keep them."""
        if self.fault is not None:
            raise self.fault
        for record in records:
            event = decode(record.value or b"")
            assert isinstance(event, ServingMeasured)
            self.sent.append(event)


def loaded(version: int, *, fails: bool = False) -> Loaded:
    """A version that answers, or fails."""
    return Loaded(version, None, "torch", digest(str(version)), FakePredictor(fails=fails))


def question(rows: int) -> Question:
    """So many good rows."""
    ids = [f"p{number}" for number in range(rows)]
    return Question([RULES.row(RAIN) for _ in range(rows)], ids)


def measuring(table: Table, sender: Sender) -> Measuring:
    """What tells, under a fixed name."""
    return Measuring(table, sender, "serving-measurements", FixedClock(), process="one", every_seconds=1)


def told(sender: Sender) -> dict[tuple[str, int], ArmMeasured]:
    """The newest measurement, by arm and version."""
    return {(each.arm, each.version): each for each in sender.sent[-1].arms}


async def test_rows_failures_and_times_are_told_by_arm_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it failed, a version that fails or is slow would look like one that is not, and pass its gates."""
    monkeypatch.setattr("tailrace_serving.domain.tally.TIMED_EVERY_SECONDS", 0)
    arms = Arms("rain", SPEC, RULES, loaded(1), shadows=(loaded(2, fails=True), loaded(3)))
    table, sender = Table(), Sender()
    table.swap(arms)
    for rows in (1, 4):
        asked = question(rows)
        found = await answer(DESK, arms, asked)
        await with_others(DESK.meter, inferences(DESK, arms, asked, found, 0.001))
    await measuring(table, sender).tell()
    one, two, three = (told(sender)[key] for key in (("champion", 1), ("shadow", 2), ("shadow", 3)))
    assert (one.answered, one.failed, sum(one.durations.values())) == (5, 0, 2)
    assert (two.answered, two.failed, two.durations) == (0, 5, {})
    assert (three.answered, three.failed, sum(three.durations.values())) == (5, 0, 2)


async def test_a_canary_that_is_stood_in_for_counts_as_failed() -> None:
    """If it failed, a canary could fail on all of its traffic and nobody would see it in the evidence."""
    arms = Arms("rain", SPEC, RULES, loaded(1), loaded(2, fails=True), 100)
    await answer(DESK, arms, question(1))
    counted = arms.tally.take()
    assert (counted["canary", 2].failed, counted["champion", 1].answered) == (1, 1)


async def test_a_champion_that_fails_is_told_although_nobody_got_an_answer() -> None:
    """If it failed, the failures of a champion, which leave no prediction event, would be nowhere."""
    arms = Arms("rain", SPEC, RULES, loaded(1, fails=True))
    with pytest.raises(Refused):
        await answer(DESK, arms, question(3))
    assert arms.tally.take()["champion", 1].failed == 3


async def test_what_could_not_be_sent_is_sent_again_as_it_was() -> None:
    """If it failed, calls would be counted twice, or never, after the broker was away for a moment."""
    arms = Arms("rain", SPEC, RULES, loaded(1))
    table, sender = Table(), Sender()
    table.swap(arms)
    teller = measuring(table, sender)
    await answer(DESK, arms, question(1))
    sender.fault = DeliveryFailed("the broker is away")
    await teller.tell()
    await answer(DESK, arms, question(2))
    sender.fault = None
    await teller.tell()
    await teller.tell()
    assert [(each.sequence, each.arms[0].answered) for each in sender.sent] == [(1, 1), (2, 2)]
    await teller.tell()
    assert len(sender.sent) == 2


async def test_what_is_refused_for_good_does_not_hold_up_the_rest() -> None:
    """If it failed, one measurement that the broker never takes would end all of them."""
    arms = Arms("rain", SPEC, RULES, loaded(1))
    table, sender = Table(), Sender()
    table.swap(arms)
    teller = measuring(table, sender)
    await answer(DESK, arms, question(1))
    sender.fault = DeliveryRefused("too large")
    await teller.tell()
    sender.fault = None
    await answer(DESK, arms, question(2))
    await teller.tell()
    assert [each.arms[0].answered for each in sender.sent] == [2]


def test_a_swap_loses_no_count() -> None:
    """If it failed, every revision of an online learner would forget what its calls came to."""
    facts = Facts()
    for event in (applied(SPEC), versioned(1, "a"), deployed(1)):
        learn(facts, event)
    wanted = plan(facts, "rain")
    assert wanted is not None
    before = arranged(wanted, {1: loaded(1)}, {}, None)
    before.tally.answered("champion", 1, 7)
    after = arranged(wanted, {1: loaded(1)}, {}, before)
    assert after.tally.take()["champion", 1].answered == 7


def test_an_arm_that_is_asked_in_batches_is_timed_now_and_then() -> None:
    """If it failed, timing would cost every batch its batching, or an arm would never be timed."""
    tally = Tally()
    assert [tally.is_due("shadow", 2, at) for at in (10.0, 10.01, 10.03)] == [True, False, True]
    assert tally.is_due("shadow", 3, 10.01)
