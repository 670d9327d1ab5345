"""The console's read model on PostgreSQL: what is announced is kept newest, and put together into a page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from tailrace_contracts.events import CoverageMeasured, SpecApplied, TrainingProgressed, WindowSpan
from tailrace_contracts.ranges import Log, LogRanges
from tailrace_monitoring.adapters.postgres_page import PostgresNotebook, PostgresPage
from tailrace_monitoring.adapters.postgres_watches import PostgresWatches
from tailrace_monitoring.adapters.river_detectors import detector
from tailrace_monitoring.domain.state import Placed, Tools
from tailrace_monitoring.handlers import Watchers, observe_examples
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
from tailrace_statistics.columns import merge
from tailrace_statistics.distances import distance

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


async def test_the_page_shows_arms_with_their_scores_comparison_and_groups(opened: Database) -> None:
    """A person could not see who answers, how well, and for whom."""
    notebook = PostgresNotebook(opened)
    versions = (version(1, "champion"), version(2, "canary"))
    await notebook.note(Log("model-specs", 0), [(0, SPEC)])
    await notebook.note(Log("model-versions", 0), list(enumerate(versions)))
    await notebook.note(Log("deployments", 0), [(0, deployment(1, 1, canary=2))])
    store = PostgresWatches(opened, Tools(detector, distance, merge, new_id), TOPICS_OUT)
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
