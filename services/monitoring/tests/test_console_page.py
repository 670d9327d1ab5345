"""The console's read model on PostgreSQL: what is announced is kept newest, and put together into a page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from tailrace_contracts.events import (
    CategoricalSummary,
    CoverageMeasured,
    GateJudged,
    Slice,
    SpecApplied,
    TrainingProgressed,
    WindowSpan,
    WindowSummarised,
)
from tailrace_contracts.ranges import Log, LogRanges
from tailrace_contracts.spec import Limits
from tailrace_monitoring.adapters.postgres_page import PostgresNotebook, PostgresPage
from tailrace_monitoring.adapters.postgres_watches import PostgresWatches
from tailrace_monitoring.adapters.river_detectors import detector
from tailrace_monitoring.domain.page import told_alerts
from tailrace_monitoring.domain.state import Placed, Tools
from tailrace_monitoring.handlers import Watchers, observe_examples, observe_window
from tailrace_monitoring.main import TOPICS_OUT
from tailrace_monitoring.testing import (
    FIRST_DAY,
    MODEL,
    NOW,
    FixedGazette,
    FixedReferences,
    SilentMeter,
    answered,
    deployment,
    knowledge,
    labelled,
    tide_spec,
    version,
)
from tailrace_runtime.database import Database
from tailrace_runtime.ids import new_id
from tailrace_runtime.testing import FixedClock
from tailrace_statistics.columns import NumericalFold, merge

SPEC = SpecApplied(model=MODEL, spec_revision=1, spec=tide_spec(), applied_by="me", time=NOW)


@pytest.fixture
async def opened(database: str) -> AsyncIterator[Database]:
    """Monitoring's own database."""
    made = Database(database, "tailrace_monitoring")
    await made.start()
    yield made
    await made.stop()


def progressed(stage: Any, epoch: int = 0) -> TrainingProgressed:
    """How far the run `r` is."""
    return TrainingProgressed(run_id="r", model=MODEL, stage=stage, epoch=epoch, epochs=60, time=NOW)


async def one_page(database: Database) -> dict[str, Any]:
    """The page of `tide`."""
    page = await PostgresPage(database).model(MODEL)
    assert page is not None
    return page


async def test_a_model_is_on_its_page_from_its_spec_on(opened: Database) -> None:
    """A model that has just been described would be missing until its first label."""
    assert await PostgresPage(opened).models() == []
    assert await PostgresPage(opened).model(MODEL) is None
    await PostgresNotebook(opened).note(Log("model-specs", 0), [(0, SPEC)])
    (line,) = await PostgresPage(opened).models()
    assert (line["model"], line["owner"], line["labelled_examples"], line["served"]) == (MODEL, "harbour", 0, None)
    page = await one_page(opened)
    assert (page["arms"], page["alerts"], page["trainings"], page["window"]) == ([], [], [], None)


async def test_an_older_announcement_never_replaces_a_newer_one(opened: Database) -> None:
    """After a restart the console would show a finished training as running, or the champion of yesterday."""
    notebook, log = PostgresNotebook(opened), Log("training-progressed", 0)
    await PostgresNotebook(opened).note(Log("model-specs", 0), [(0, SPEC)])
    await notebook.note(log, [(4, progressed("training", 3)), (5, progressed("finished", 60))])
    await notebook.note(log, [(4, progressed("training", 3))])
    (run,) = (await one_page(opened))["trainings"]
    assert (run["stage"], run["epoch"]) == ("finished", 60)


async def test_the_page_shows_how_many_predictions_have_a_label(opened: Database) -> None:
    """Labels that stop coming would look like a model of which nothing is known."""
    notebook = PostgresNotebook(opened)
    await notebook.note(Log("model-specs", 0), [(0, SPEC)])

    def counted(partition: int, labelled: int) -> CoverageMeasured:
        span = WindowSpan(start=FIRST_DAY, end=FIRST_DAY + timedelta(days=1))
        return CoverageMeasured(
            model=MODEL,
            window=span,
            partition=partition,
            predictions=10,
            labelled=labelled,
            through=labelled,
            derived_from=LogRanges(),
        )

    await notebook.note(Log("label-coverage", 0), [(4, counted(0, 3)), (7, counted(0, 5))])
    await notebook.note(Log("label-coverage", 1), [(2, counted(1, 10))])
    await notebook.note(Log("label-coverage", 0), [(4, counted(0, 3))])
    (window,) = (await one_page(opened))["coverage"]
    assert (window["predictions"], window["labelled"], window["waiting"], window["share"]) == (20, 15, 5, 0.75)


async def test_the_page_shows_how_a_version_stands_at_its_gates(opened: Database) -> None:
    """A person could not see on the console which gate holds a candidate back."""
    notebook = PostgresNotebook(opened)
    gate = GateJudged(gate="latency", state="failed", reason="its 99th percentile is 61 ms")
    held = version(2, "shadow").model_copy(update={"gates": (gate,)})
    await notebook.note(Log("model-specs", 0), [(0, SPEC)])
    await notebook.note(Log("model-versions", 0), [(0, version(1, "champion")), (1, held)])
    found = {each["version"]: each["gates"] for each in (await one_page(opened))["versions"]}
    assert found == {
        1: [],
        2: [{"gate": "latency", "state": "failed", "reason": "its 99th percentile is 61 ms"}],
    }


async def test_the_page_shows_arms_with_their_scores_comparison_and_groups(opened: Database) -> None:
    """A person could not see who answers, how well, and for whom."""
    notebook = PostgresNotebook(opened)
    versions = (version(1, "champion"), version(2, "canary"))
    await notebook.note(Log("model-specs", 0), [(0, SPEC)])
    await notebook.note(Log("model-versions", 0), list(enumerate(versions)))
    await notebook.note(Log("deployments", 0), [(0, deployment(1, 1, canary=2))])
    store = PostgresWatches(opened, Tools(detector, merge, new_id), TOPICS_OUT)
    watchers = Watchers(FixedGazette({}), store, FixedReferences(), SilentMeter(), FixedClock())
    known = knowledge(tide_spec(), deployment(1, 1, canary=2), versions)
    batch = [
        Placed(
            Log("labelled-examples", 0),
            n,
            labelled(n, 1, answered("champion", int(n % 4 > 0), 1), answered("canary", 1, 2), time=FIRST_DAY),
        )
        for n in range(80)
    ]
    await observe_examples(MODEL, batch, known, watchers)
    page = await one_page(opened)
    champion, canary = page["arms"]
    assert (champion["arm"], champion["percent"], champion["accuracy"], champion["comparison"]) == (
        "champion",
        80,
        0.75,
        None,
    )
    assert (canary["arm"], canary["percent"], canary["comparison"]["verdict"]) == ("canary", 20, "better")
    assert page["served"] == {"examples": 80, "accuracy": 0.75, "recent_accuracy": 0.75}
    assert {(each["group"], each["selection_rate"]) for each in page["groups"]} == {("north", 1.0), ("south", 0.5)}
    assert {(each["version"], each["accuracy"]) for each in page["cohorts"]} == {(1, 0.75), (2, 1.0)}
    assert [(round(each["lower"], 3), round(each["upper"], 3)) for each in page["cohorts"] if each["version"] == 1] == [
        (0.645, 0.832)
    ]
    assert (page["fairness"]["version"], page["fairness"]["closed"], page["fairness"]["comparisons"]) == (1, False, [])


def test_what_an_alert_led_to_is_told_through_to_the_version_that_came_of_it() -> None:
    """The console would stop at the training that was asked for, and not say that its version serves."""
    alert = {"event": {"alert_id": "a", "led_to": "r"}}
    other = {"event": {"alert_id": "b", "led_to": ""}}
    made = {"event": {"run_id": "r", "version": 3, "stage": "champion", "time": "2026-05-04T00:00:00Z"}}
    empty: dict[str, list[dict[str, Any]]] = {"alerts": [alert, other], "progress": [], "requests": [], "versions": []}
    first, second = told_alerts(empty)
    assert (first["story"]["training"], second["story"]) == ("awaited", None)
    asked = empty | {"requests": [{"event": {"run_id": "r"}}]}
    assert told_alerts(asked)[0]["story"]["training"] == "requested"
    going = asked | {"progress": [{"event": {"run_id": "r", "stage": "training"}}]}
    assert told_alerts(going)[0]["story"]["training"] == "training"
    story = told_alerts(going | {"versions": [made]})[0]["story"]
    assert (story["training"], story["version"], story["stage"]) == ("finished", 3, "champion")


async def test_the_data_of_the_newest_window_are_shown_without_their_sketches(opened: Database) -> None:
    """A person could not see what is in the data, or the page would weigh megabytes."""
    await PostgresNotebook(opened).note(Log("model-specs", 0), [(0, SPEC)])
    store = PostgresWatches(opened, Tools(detector, merge, new_id), TOPICS_OUT)
    watchers = Watchers(FixedGazette({}), store, FixedReferences(), SilentMeter(), FixedClock())
    fold = NumericalFold(Limits(min=-5, max=5))
    fold.fold([0.0, 1.0, 2.0, 3.0, 94.0])
    quay = CategoricalSummary(
        count=5, missing=1, unseen=1, counts={"north": 3, "south": 1, "east": 0}, unseen_counts={"?": 1}
    )
    part = Slice(arm="champion", version=1, events=5, columns={"level": fold.summary(), "quay": quay})
    window = WindowSummarised(
        model=MODEL,
        spec_revision=1,
        window=WindowSpan(start=FIRST_DAY, end=FIRST_DAY + timedelta(days=30)),
        events=6,
        columns={"level": fold.summary(), "quay": quay},
        slices=(part,),
        closed=False,
        derived_from=LogRanges(),
    )
    await observe_window((Log("feature-statistics", 0), 0, window), knowledge(tide_spec()), watchers)
    page = await one_page(opened)
    level, quays = (column["now"] for column in page["columns"])
    assert (level["count"], level["bad"], level["minimum"], level["median"], level["maximum"]) == (5, 1, 0.0, 2.0, 94.0)
    assert (quays["missing"], quays["bad"], quays["unseen"]) == (1, 1, ["?"])
    assert level["distinct"] == 5
    assert quays["frequent"] == [["north", 3], ["?", 1], ["south", 1]]
    (shown,) = page["window"]["slices"]
    assert (shown["arm"], shown["version"], shown["events"], shown["columns"]["level"]["mean"]) == (
        "champion",
        1,
        5,
        20.0,
    )
    assert "quantiles" not in str(page)


async def test_the_page_of_a_regression_shows_errors(opened: Database) -> None:
    """A person would see a regression that is right on 0 % of its answers."""
    notebook, spec = PostgresNotebook(opened), tide_spec(task="regression", label={"name": "cm", "loss_scale": 50})
    told = SPEC.model_copy(update={"spec": spec})
    await notebook.note(Log("model-specs", 0), [(0, told)])
    await notebook.note(Log("model-versions", 0), [(0, version(1, "champion"))])
    await notebook.note(Log("deployments", 0), [(0, deployment(1, 1))])
    store = PostgresWatches(opened, Tools(detector, merge, new_id), TOPICS_OUT)
    watchers = Watchers(FixedGazette({}), store, FixedReferences(), SilentMeter(), FixedClock())
    known = knowledge(spec, deployment(1, 1), [version(1, "champion")])
    log = Log("labelled-examples", 0)
    batch = [
        Placed(log, n, labelled(n, 10.5, answered("champion", 12.5 if n % 2 else 4.5, 1), time=FIRST_DAY))
        for n in range(80)
    ]
    await observe_examples(MODEL, batch, known, watchers)
    page = await one_page(opened)
    (champion,) = page["arms"]
    assert (champion["accuracy"], champion["recent_accuracy"]) == (None, None)
    assert {name: champion["metrics"][name] for name in ("mae", "bias")} == {"mae": 4.0, "bias": -2.0}
    assert page["served"]["metrics"]["mae"] == 4.0
    (cohort,) = page["cohorts"]
    assert (cohort["accuracy"], cohort["metrics"]["mae"]) == (None, 4.0)
    groups = {each["group"]: (each["examples"], each["metrics"]["mae"]) for each in page["groups"]}
    assert groups == {"north": (40, 2.0), "south": (40, 6.0)}
