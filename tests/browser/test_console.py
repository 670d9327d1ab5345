"""The console in a real browser: a model, an alert and a promotion appear by themselves when they arrive on the topics.

Needs a Chromium on the path (Debian: `apt-get install chromium`). Without one the tests are skipped, and fail in CI.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tailrace_contracts.events import (
    AuditRecorded,
    CategoricalSummary,
    ColumnSummary,
    Event,
    ExampleLabelled,
    Mute,
    MutesChanged,
    Slice,
    SpecApplied,
    WindowSpan,
    WindowSummarised,
)
from tailrace_contracts.ranges import LogRanges
from tailrace_contracts.spec import Limits
from tailrace_monitoring.app import create_service
from tailrace_monitoring.main import TOPICS_IN, TOPICS_OUT
from tailrace_monitoring.settings import MonitoringSettings
from tailrace_monitoring.testing import FIRST_DAY, MODEL, NOW, answered, deployment, labelled, tide_spec, version
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import outgoing
from tailrace_runtime.topics import create_all
from tailrace_statistics.columns import NumericalFold
from tailrace_testing import Broker, eventually, require_tool

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Console:
    """A running monitoring service, and the topics that it listens to."""

    url: str
    producer: Producer

    async def tell(self, topic: str, *events: Event, key: str = MODEL) -> None:
        """Publish events, acknowledged."""
        await self.producer.send_all([outgoing(event, topic, key) for event in events])


@pytest.fixture
async def console(kafka: Broker, database: str, tmp_path: Path) -> AsyncIterator[Console]:
    """Monitoring in this process, on topics and a database of the test's own."""
    settings = MonitoringSettings(
        kafka_bootstrap=kafka.bootstrap,
        topic_prefix=kafka.unique("console") + "-",
        database_url=database,
        object_store=f"file://{tmp_path}",
        port=0,
    )
    await create_all(settings)
    producer = Producer(settings)
    await producer.start()
    service, stop = create_service(TOPICS_IN, TOPICS_OUT, settings), asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    await eventually(lambda: service.health.readiness()[0] or running.done(), seconds=40)
    yield Console(f"http://127.0.0.1:{service.port}/", producer)
    stop.set()
    await running
    await producer.stop()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Chromium without a window."""
    program = require_tool("chromium")
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=str(program), args=list(FLAGS))
        yield opened
        await opened.close()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page on which nothing may go wrong: errors and refused content fail the test."""
    complaints: list[str] = []
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    opened = await context.new_page()
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    yield opened
    await context.close()
    assert complaints == []


def spec_applied() -> SpecApplied:
    """The model as its owner described it."""
    spec = tide_spec(description="Will the quay be flooded?")
    return SpecApplied(model=MODEL, spec_revision=1, spec=spec, applied_by="me", time=NOW)


def promotion(number: int) -> AuditRecorded:
    """The registry's word that a version is champion."""
    return AuditRecorded(
        sequence=number,
        model=MODEL,
        actor="registry",
        action="champion",
        subject=f"version {number}",
        outcome="done",
        reason=f"from canary to champion: version {number} is better",
        time=NOW,
        previous_sha256="0" * 64,
        sha256="0" * 64,
    )


async def begin(console: Console) -> None:
    """Describe `tide`, with champion 1 and shadow 2."""
    await console.tell("model-specs", spec_applied())
    await console.tell("model-versions", version(1, "champion"), key=f"{MODEL}/1")
    await console.tell("model-versions", version(2, "shadow"), key=f"{MODEL}/2")
    await console.tell("deployments", deployment(1, 1, shadows=(2,)))


def drifting(count: int, drift_at: int) -> list[ExampleLabelled]:
    """The champion errs on every fifth example, and always from `drift_at` on; the shadow never."""
    return [
        labelled(n, 1, answered("champion", int(n % 5 > 0 and n < drift_at), 1), answered("shadow", 1, 2))
        for n in range(count)
    ]


async def test_a_model_an_alert_and_a_promotion_appear_as_they_arrive(console: Console, page: Page) -> None:
    """Whoever watches the console would have to reload it, or would not learn that the champion went wrong."""
    await page.goto(console.url)
    await expect(page.locator("#empty")).to_contain_text("There is no model yet")
    await begin(console)
    await expect(page.get_by_role("heading", level=1)).to_have_text(MODEL, timeout=20_000)
    await expect(page.locator("#description")).to_contain_text("Will the quay be flooded?")
    await expect(page.locator("#alerts")).to_have_text("Nothing has moved.")

    await console.tell("labelled-examples", *drifting(600, drift_at=450))
    alert = page.locator('#alerts li[data-kind="concept-drift"]')
    await expect(alert).to_contain_text("the error rate of version 1 rose", timeout=20_000)
    await expect(alert).to_contain_text("led to training run-")
    champion, shadow = page.locator("#arms tbody tr").nth(0), page.locator("#arms tbody tr").nth(1)
    await expect(champion).to_contain_text("champion")
    await expect(shadow).to_contain_text("better")
    await expect(page.locator("#announcer")).to_contain_text("New alert")

    await console.tell("model-versions", version(1, "retired"), key=f"{MODEL}/1")
    await console.tell("model-versions", version(2, "champion"), key=f"{MODEL}/2")
    await console.tell("deployments", deployment(2, 2))
    await console.tell("audit-entries", promotion(2))
    await expect(page.locator("#arms tbody tr")).to_have_count(1, timeout=20_000)
    await expect(champion.locator("td").nth(1)).to_have_text("2")
    await expect(page.locator("#audit")).to_contain_text("version 2 is better")
    await expect(page.locator("#pulse")).to_have_text("live")


def unequal(count: int) -> list[ExampleLabelled]:
    """Every northern quay is selected, no southern one; both arms say so. All of one day, but the last."""
    given = [
        labelled(n, int(n % 3 > 0), answered("champion", n % 2, 1), answered("shadow", n % 2, 2), time=FIRST_DAY)
        for n in range(count)
    ]
    return [*given, labelled(count, 1, answered("champion", 1, 1), time=FIRST_DAY + timedelta(days=90))]


def a_window() -> WindowSummarised:
    """Levels, one of them out of limits, by quay."""
    fold = NumericalFold(Limits(min=-5, max=5))
    fold.fold([0.1, 0.2, 0.3, 94.0])
    level, quay = fold.summary(), CategoricalSummary(count=4, counts={"north": 3, "south": 1})
    whole: dict[str, ColumnSummary] = {"level": level, "quay": quay}
    north = Slice(attribute="quay", group="north", events=3, columns={"level": level})
    span = WindowSpan(start=FIRST_DAY, end=FIRST_DAY + timedelta(days=30))
    return WindowSummarised(
        model=MODEL,
        spec_revision=1,
        window=span,
        events=4,
        columns=whole,
        slices=(north,),
        closed=False,
        derived_from=LogRanges(),
    )


def a_mute() -> MutesChanged:
    """Fairness alerts are muted for a day."""
    now = datetime.now(UTC)
    mute = Mute(
        mute_id="mute-1",
        kinds=("fairness",),
        owner="ada",
        reason="the board decides on Friday",
        muted_by="ada",
        since=now - timedelta(hours=1),
        until=now + timedelta(days=1),
    )
    return MutesChanged(model=MODEL, sequence=1, mutes=(mute,), time=now)


async def test_groups_data_and_mutes_are_shown_with_their_intervals(console: Console, page: Page) -> None:
    """A person could not see whom the model treats how, what is wrong with the data, or what is kept quiet, and by whom."""
    await begin(console)
    await console.tell("alert-mutes", a_mute())
    await page.goto(console.url)
    await expect(page.locator("#mutes")).to_contain_text("tailrace unmute tide mute-1", timeout=20_000)
    await console.tell("labelled-examples", *unequal(900))
    await console.tell("feature-statistics", a_window())
    muted = page.locator('#alerts li.muted[data-kind="fairness"]')
    await expect(muted).to_contain_text("selects quay=north 100.0% more often than quay=south", timeout=20_000)
    await expect(muted).to_contain_text("muted by ada until")
    await muted.locator("summary").press("Enter")
    await expect(muted.locator("code")).to_contain_text("labelled-examples[")
    await expect(page.locator("#groups tbody tr")).to_have_count(2)
    await expect(page.locator("#gaps")).to_contain_text("over the limit")
    await page.get_by_label("Rate").select_option("true_positive_rate")
    await expect(page.locator("#gaps-hint")).to_contain_text("sets no limit for the true positive rate")
    level = page.locator("#quality tbody tr").filter(has_text="level")
    await expect(level.locator(".trouble")).to_contain_text("1")
    await expect(page.locator("#slices")).to_contain_text("quay = north")


async def test_the_page_is_usable_by_keyboard_and_on_a_phone(console: Console, page: Page) -> None:
    """People without a mouse or with a small screen could not read it."""
    await begin(console)
    await page.set_viewport_size({"width": 390, "height": 800})
    await page.goto(console.url)
    await expect(page.get_by_role("heading", level=1)).to_have_text(MODEL, timeout=20_000)
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name=MODEL)).to_be_focused()
    wide = await page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    assert not wide, "the page itself scrolls sideways"


async def test_an_outage_is_said_and_ends_by_itself(console: Console, page: Page) -> None:
    """Old figures would be taken for the present ones while monitoring is down."""
    await begin(console)
    await page.goto(console.url)
    await expect(page.locator("#pulse")).to_have_text("live", timeout=20_000)
    await page.context.route("**/api/**", lambda route: route.fulfill(status=200, body="not JSON"))
    await expect(page.locator("#pulse")).to_have_text("no answer, trying again", timeout=20_000)
    await page.context.unroute("**/api/**")
    await expect(page.locator("#pulse")).to_have_text("live", timeout=20_000)
