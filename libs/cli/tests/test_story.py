"""What a demo reports is counted by identity and adds up."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from tailrace_cli.connection import Connection
from tailrace_cli.demo import datasets, report
from tailrace_cli.demo.story import Score, Story
from tailrace_cli.demo.view import line, screen
from tailrace_cli.demo.watcher import Flow, Watcher
from tailrace_cli.demo.weather import prediction_id
from tailrace_contracts.events import ArmOutput, DeploymentChanged, Evidence, ExampleLabelled, GroupRates, decode
from tailrace_contracts.ranges import LogRanges, Trigger

NOW = datetime(2026, 5, 4, tzinfo=UTC)


def example(number: int, label: int, *, revision: int = 0, model: str = "rain") -> ExampleLabelled:
    """A played day: version 1 served 1, version 2 said 0 beside it."""
    return ExampleLabelled(
        prediction_id=prediction_id("rain", number),
        model=model,
        time=NOW,
        label_time=NOW,
        features={},
        label=label,
        label_revision=revision,
        served=ArmOutput(arm="champion", prediction=1, version=1),
        shadows=(ArmOutput(arm="shadow", prediction=0, version=2),),
        trigger=Trigger(topic="labels", partition=0, offset=number),
        derived_from=LogRanges(),
    )


def deployment(sequence: int, champion: int | None, *evidence: str, returned: bool = False) -> DeploymentChanged:
    """A deployment with this champion."""
    items = tuple(Evidence(kind="comparison", event_id=each, summary=each) for each in evidence)
    return DeploymentChanged(
        model="rain",
        sequence=sequence,
        spec_revision=1,
        champion=champion,
        returned=returned,
        reason="x",
        evidence=items,
        time=NOW,
    )


def story() -> Story:
    """A story in which the first hundred rows are history."""
    return Story("rain", is_live=lambda question: question >= prediction_id("rain", 100))


def test_every_arm_is_scored_on_the_played_stream_only_and_once() -> None:
    """History, other models and repeated records would flatter or spoil the accuracy."""
    told = story()
    for event in (example(5, 1), example(100, 1), example(100, 1), example(101, 0), example(102, 1, model="other")):
        told.tell(event)
    told.tell(example(101, 1, revision=1))
    assert (told.served.right, told.served.total) == (1, 2)
    assert (told.scores[1].accuracy, told.scores[2].accuracy) == (0.5, 0.5)
    assert len(told.joined) == 3
    assert told.corrections == 1


def test_the_first_champion_is_no_promotion() -> None:
    """The demo would call a loop closed in which nothing was ever compared."""
    told = story()
    for each in (deployment(1, None), deployment(2, 1), deployment(3, 1), deployment(4, 3, "3 beats 1")):
        told.tell(each)
    [promotion] = report.champions(told, told.promotions)
    assert (promotion.from_version, promotion.to_version, promotion.evidence) == (1, 3, ("3 beats 1",))


def test_a_champion_that_returns_is_no_promotion() -> None:
    """The demo would call a rollback a promotion, and the loop closed by it."""
    told = story()
    for each in (deployment(1, 1), deployment(2, 3), deployment(3, 1, "1 beats 3", returned=True)):
        told.tell(each)
    [rollback] = report.champions(told, told.rollbacks)
    assert (rollback.from_version, rollback.to_version) == (3, 1)
    assert "no candidate was promoted on evidence" in report.loop_problems(told)


def test_a_loop_that_did_not_close_says_why() -> None:
    """The demo would exit 0 though nothing was learned."""
    told = story()
    assert report.loop_problems(told) == ["no batch retraining finished", "no candidate was promoted on evidence"]
    events = report.EventCounts(published=10, valid=8, dead_lettered=1)
    assert len(report.count_problems(events, report.LabelCounts(published=10, joined=7), 8)) == 2
    assert (
        report.count_problems(
            events.model_copy(update={"dead_lettered": 2}), report.LabelCounts(published=10, joined=8), 8
        )
        == []
    )


def test_groups_are_pooled_by_their_sizes() -> None:
    """A small cohort would weigh as much as a large one."""
    rates = [
        GroupRates(attribute="SEX", group="1", examples=300, selection_rate=0.5, accuracy=0.8),
        GroupRates(attribute="SEX", group="1", examples=100, selection_rate=0.9, accuracy=None),
    ]
    [line] = report.pooled(rates)
    assert (line.examples, line.selection_rate, line.accuracy, line.true_positive_rate) == (400, 0.6, 0.8, None)


def test_the_data_sets_are_what_their_story_says() -> None:
    """The demo would play something else than it claims."""
    days = datasets.weather()
    assert len(days) == 18_159
    assert [day.number for day in days if abs(float(day.features["sea-level pressure"] or 0)) > 90] == [3595, 3596]
    assert sum(day.label for day in days) / len(days) == pytest.approx(0.314, abs=0.005)
    first = next(datasets.employment())
    assert set(first.features) == set(datasets.spec("employment").feature_names)
    assert set(days[0].features) == set(datasets.spec("rain").feature_names)
    assert first.time == datetime(2015, 1, 1, tzinfo=UTC)


def test_the_screen_shows_the_loop() -> None:
    """Whoever watches the demo would not see who answers, how well, and what happens."""
    told = story()
    for path in sorted((Path(__file__).parents[3] / "schemas" / "examples").glob("*/*.json")):
        told.tell(decode(path.read_bytes()))
    told.scores[1] = Score(right=800, total=1_000)
    watcher = Watcher(
        Connection("127.0.0.1:9", "", "", "", ""), told, "rain-", {"training-online": Flow(lag=3, rate=120.0)}
    )
    console = Console(width=120, file=io.StringIO())
    console.print(screen(watcher, "day 1,200"))
    shown = console.file.getvalue() if isinstance(console.file, io.StringIO) else ""
    for words in (
        "day 1,200",
        "training-online",
        "champion",
        "80.0 %",
        "concept-drift",
        "version 3 is better in shadow",
    ):
        assert words in shown
    assert "champion 1" in line(watcher, "day 1,200")
