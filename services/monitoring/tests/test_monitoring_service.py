"""Monitoring as a process, on a real broker and a real PostgreSQL: the whole way, killed, shared, and waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tailrace_contracts.events import (
    AlertRaised,
    ArmsCompared,
    Event,
    EventParked,
    ExampleLabelled,
    Mute,
    MutesChanged,
    PerformanceEstimated,
    PerformanceMeasured,
    SpecApplied,
    TrainingRequested,
)
from tailrace_local import EmbeddedPostgres
from tailrace_monitoring.testing import (
    ANSWERS,
    MODEL,
    NOW,
    answered,
    deployment,
    labelled,
    month,
    month_of,
    tide_spec,
    version,
    window_of_answers,
)
from tailrace_runtime.follower import Follower
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Outgoing, Record, outgoing
from tailrace_runtime.settings import KafkaSettings
from tailrace_runtime.topics import create_all
from tailrace_testing import Broker, ServiceProcess, environment_of, eventually

OUT = ("evaluations", "alerts", "training-requested", "dead-letters")
WORKER = Path(__file__).with_name("dying_worker.py")


class Deployment:
    """Topics, a database, and monitoring's processes between them."""

    def __init__(self, settings: KafkaSettings, database_url: str, folder: Path) -> None:
        self.settings = settings
        self.heard: list[Event] = []
        self.folder = folder
        self._database_url = database_url
        self._producer = Producer(settings)
        self._followers = [Follower(settings, topic, self._hear) for topic in OUT]
        self._processes: list[ServiceProcess] = []

    def _hear(self, event: Event | None, record: Record) -> None:
        del record
        if event is not None:
            self.heard.append(event)

    async def open(self) -> None:
        """Create the topics and listen to those that monitoring writes."""
        await create_all(self.settings)
        await self._producer.start()
        for follower in self._followers:
            await follower.start()

    async def close(self) -> None:
        """Leave nothing behind."""
        for process in self._processes:
            process.kill()
        for follower in self._followers:
            await follower.stop()
        await self._producer.stop()

    def start(self, *program: str, **settings: str) -> ServiceProcess:
        """A process: the service, or another program with its environment."""
        given = {
            **environment_of(self.settings),
            "TAILRACE_DATABASE_URL": self._database_url,
            "TAILRACE_OBJECT_STORE": f"file://{self.folder}",
            "TAILRACE_INSTANCE": str(len(self._processes)),
            **{f"TAILRACE_{name.upper()}": value for name, value in settings.items()},
        }
        name = f"monitoring-{len(self._processes)}"
        made = ServiceProcess(name, program or ["-m", "tailrace_monitoring.main"], self.folder / f"{name}.log", **given)
        made.start()
        self._processes.append(made)
        return made

    async def tell(self, topic: str, *events: Event, key: str = MODEL) -> None:
        """Publish events, acknowledged."""
        await self._producer.send_all([outgoing(event, topic, key) for event in events])

    async def send(self, *records: Outgoing) -> None:
        """Publish anything, acknowledged."""
        await self._producer.send_all(records)

    async def on_trial(self) -> None:
        """Describe `tide`: champion 1, shadow 2."""
        spec = tide_spec(retraining={"settle_examples": 120})
        await self.tell("model-specs", SpecApplied(model=MODEL, spec_revision=1, spec=spec, applied_by="me", time=NOW))
        for number, stage in ((1, "champion"), (2, "shadow")):
            await self.tell("model-versions", version(number, stage), key=f"{MODEL}/{number}")  # type: ignore[arg-type]  # stages
        await self.tell("deployments", deployment(1, 1, shadows=(2,)))

    def of(self, kind: type[Event]) -> list[Any]:
        """What was published of a class, in order."""
        return [event for event in self.heard if isinstance(event, kind)]

    async def compared(self, examples: int) -> ArmsCompared:
        """The comparison on so many examples, once it is published."""

        def found() -> list[ArmsCompared]:
            return [each for each in self.of(ArmsCompared) if each.examples == examples]

        return (await eventually(found, seconds=60))[-1]

    async def get(self, path: str, process: int = -1) -> httpx.Response:
        """What a process answers over HTTP; 503 while it does not listen yet."""
        async with httpx.AsyncClient() as client:
            try:
                return await client.get(self._processes[process].base + path)
            except httpx.TransportError:
                return httpx.Response(503)

    async def ready(self, process: int = -1) -> bool:
        """Whether a process says that it is ready."""
        return (await self.get("/readyz", process)).status_code == 200


@pytest.fixture
async def deployed(kafka: Broker, database: str, tmp_path: Path) -> AsyncIterator[Deployment]:
    """Topics and a database of the test's own; no process yet."""
    settings = KafkaSettings(kafka_bootstrap=kafka.bootstrap, topic_prefix=kafka.unique("monitoring") + "-")
    opened = Deployment(settings, database, tmp_path)
    await opened.open()
    yield opened
    await opened.close()


def examples(numbers: range, drift_at: int = 10_000) -> list[ExampleLabelled]:
    """The champion errs on every fifth example, and always from `drift_at` on; the shadow on every tenth."""
    return [
        labelled(
            n,
            1,
            answered("champion", int(n % 5 > 0 and n < drift_at), 1),
            answered("shadow", int(n % 10 > 0), 2),
        )
        for n in numbers
    ]


async def test_from_examples_to_evaluations_alerts_and_a_training(deployed: Deployment) -> None:
    """The loop would not close: no evidence, no alert, no training, and nothing to look at."""
    await deployed.on_trial()
    deployed.start()
    await deployed.tell("labelled-examples", *examples(range(1000), drift_at=800))

    def drifted() -> list[AlertRaised]:
        return [each for each in deployed.of(AlertRaised) if each.kind == "concept-drift"]

    (alert,) = await eventually(drifted, seconds=60)
    (request,) = await eventually(lambda: deployed.of(TrainingRequested), seconds=30)
    assert request.run_id == alert.led_to
    (trained_on,) = request.ranges
    assert (trained_on.topic, trained_on.from_offset) == ("labelled-examples", 800)
    assert deployed.of(PerformanceMeasured)
    assert deployed.of(ArmsCompared)[-1].verdict == "better"
    page = (await deployed.get(f"/api/models/{MODEL}")).json()
    assert page["alerts"][0]["alert_id"] == alert.alert_id or len(page["alerts"]) > 1
    assert [arm["version"] for arm in page["arms"]] == [1, 2]
    metrics = (await deployed.get("/metrics")).text
    assert 'tailrace_alerts_total{kind="concept-drift",model="tide",service="monitoring"} 1.0' in metrics
    assert 'tailrace_arm_accuracy{arm="shadow",model="tide",service="monitoring",version="2"} 0.9' in metrics


async def test_killed_after_effect_before_commit(deployed: Deployment) -> None:
    """After a crash examples would count twice: wrong accuracies, premature verdicts, the same alert again."""
    await deployed.on_trial()
    mark = deployed.folder / "died"
    first = deployed.start(str(WORKER), str(mark), instance="same")
    await deployed.tell("labelled-examples", *examples(range(400), drift_at=150))
    assert await first.end(60) == -9
    assert mark.exists()
    deployed.start(str(WORKER), str(mark), instance="same")
    await deployed.tell("labelled-examples", *examples(range(400, 500), drift_at=150))

    def drifts() -> list[AlertRaised]:
        return [each for each in deployed.of(AlertRaised) if each.kind == "concept-drift"]

    await eventually(drifts, seconds=60)
    page = await eventually(lambda: all_counted(deployed, 500), seconds=60)
    scores = {arm["version"]: (arm["examples"], arm["accuracy"]) for arm in page["arms"]}
    assert scores == {1: (500, 120 / 500), 2: (500, 0.9)}
    identities = [each.alert_id for each in drifts()]
    assert len({each.alert_id for each in drifts()}) == 1, identities
    counted = {each.evaluation_id: each.examples for each in deployed.of(ArmsCompared)}
    assert max(counted.values()) <= 500


async def all_counted(deployed: Deployment, count: int, process: int = -1) -> Any:
    """The model's page, once it has counted so many examples."""
    answer = await deployed.get(f"/api/models/{MODEL}", process)
    page = answer.json() if answer.status_code == 200 else {}
    return page if page.get("labelled_examples", 0) >= count else None


async def test_a_second_process_takes_over_when_the_first_is_killed(deployed: Deployment) -> None:
    """Monitoring would stop with one machine, or count what both have read twice."""
    await deployed.on_trial()
    first = deployed.start()
    await deployed.tell("labelled-examples", *examples(range(200)))
    await deployed.compared(200)
    deployed.start()
    await eventually(deployed.ready, seconds=60)
    await deployed.tell("labelled-examples", *examples(range(200, 400)))
    first.kill()
    await deployed.tell("labelled-examples", *examples(range(400, 600)))
    page = await eventually(lambda: all_counted(deployed, 600), seconds=90)
    assert {arm["version"]: arm["examples"] for arm in page["arms"]} == {1: 600, 2: 600}


async def test_the_database_goes_away_and_returns(
    kafka: Broker, database_of_its_own: Callable[[], EmbeddedPostgres], tmp_path: Path
) -> None:
    """A restart of the database would lose examples, or stop monitoring for good."""
    server = database_of_its_own()
    settings = KafkaSettings(kafka_bootstrap=kafka.bootstrap, topic_prefix=kafka.unique("monitoring") + "-")
    deployed = Deployment(settings, server.admin_url, tmp_path)
    await deployed.open()
    try:
        await deployed.on_trial()
        deployed.start()
        await deployed.tell("labelled-examples", *examples(range(100)))
        await deployed.compared(100)
        await asyncio.to_thread(server.stop)
        await deployed.tell("labelled-examples", *examples(range(100, 250)))
        answer = await deployed.get(f"/api/models/{MODEL}")
        assert answer.status_code == 503
        assert answer.json()["error"].endswith("try again")
        await asyncio.to_thread(server.start)
        await deployed.compared(250)
    finally:
        await deployed.close()


async def test_what_cannot_be_read_or_belongs_to_nobody_is_parked_and_the_rest_goes_on(deployed: Deployment) -> None:
    """One broken record would stop a partition, or vanish."""
    await deployed.on_trial()
    deployed.start()
    good = examples(range(100))
    stranger = good[0].model_copy(update={"model": "nobody"})
    key = MODEL.encode()
    await deployed.tell("labelled-examples", *good[:50])
    await deployed.send(
        Outgoing("labelled-examples", b'{"type": "example-labelled"', key),
        outgoing(stranger, "labelled-examples", MODEL),
    )
    await deployed.tell("labelled-examples", *good[50:])
    await deployed.compared(100)
    await eventually(lambda: len(deployed.of(EventParked)) == 2, seconds=20)
    parked = deployed.of(EventParked)
    assert {each.code for each in parked} == {"unreadable-event", "unknown-model"}
    assert "there is no model nobody" in next(each.reason for each in parked if each.code == "unknown-model")


async def test_roles_can_run_apart(deployed: Deployment, database: str) -> None:
    """An SRE could not scale the watch without putting a console on every machine."""
    await deployed.on_trial()
    deployed.start(roles="watch")
    deployed.start(roles="console")
    await deployed.tell("labelled-examples", *examples(range(50)))
    page = await eventually(lambda: all_counted(deployed, 50), seconds=60)
    assert page["model"] == MODEL
    assert (await deployed.get("/", process=0)).status_code == 404
    connection = await asyncpg.connect(database)
    try:
        assert await connection.fetchval("select count(*) from watches") == 1
    finally:
        await connection.close()


def mutes(sequence: int, until: datetime) -> MutesChanged:
    """All performance alerts of `tide` are muted until then."""
    mute = Mute(
        mute_id="m",
        kinds=("performance",),
        owner="ada",
        reason="the gauge is being replaced",
        muted_by="ada",
        since=datetime.now(UTC) - timedelta(minutes=1),
        until=until,
    )
    return MutesChanged(model=MODEL, sequence=sequence, mutes=(mute,), time=NOW)


async def test_a_muted_alert_arrives_marked_and_the_next_one_after_its_end_is_heard(deployed: Deployment) -> None:
    """A mute would lose alerts, would not keep monitoring from asking for trainings, or would never end."""
    spec = tide_spec(
        monitors={"window_days": 30, "performance": {"min_accuracy": 0.95}, "concept_drift": None},
        retraining={"after": ["performance"], "settle_examples": 0},
        learners={"batch": {"min_examples": 20, "max_examples": 200}},
    )
    await deployed.tell("model-specs", SpecApplied(model=MODEL, spec_revision=1, spec=spec, applied_by="me", time=NOW))
    await deployed.tell("model-versions", version(1, "champion"), key=f"{MODEL}/1")
    await deployed.tell("deployments", deployment(1, 1))
    await deployed.tell("alert-mutes", mutes(1, datetime.now(UTC) + timedelta(days=1)))
    deployed.start()
    await deployed.tell("labelled-examples", *examples(range(100)))
    muted = await eventually(lambda: deployed.of(AlertRaised), seconds=60)
    assert {(each.kind, each.muted_by, each.mute_id, each.led_to) for each in muted} == {
        ("performance", "ada", "m", "")
    }
    await eventually(lambda: all_counted(deployed, 100), seconds=60)
    assert deployed.of(TrainingRequested) == []
    page = (await deployed.get(f"/api/models/{MODEL}")).json()
    assert {each["mute_id"] for each in page["alerts"]} == {"m"}
    assert [each["owner"] for each in page["mutes"]] == ["ada"]

    end = datetime.now(UTC) + timedelta(seconds=2)
    await deployed.tell("alert-mutes", mutes(2, end))
    await eventually(lambda: datetime.now(UTC) > end, seconds=20)
    await deployed.tell("labelled-examples", *examples(range(100, 250)))
    (request, *_) = await eventually(lambda: deployed.of(TrainingRequested), seconds=60)
    heard = await eventually(lambda: [each for each in deployed.of(AlertRaised) if not each.muted_by], seconds=60)
    assert request.run_id == heard[0].led_to
    metrics = (await deployed.get("/metrics")).text
    assert (
        f'tailrace_muted_alerts_total{{kind="performance",model="tide",service="monitoring"}} {len(muted)}.0' in metrics
    )


async def test_an_estimate_is_published_before_labels_and_corrected_by_them(deployed: Deployment) -> None:
    """People would learn how a month went only when its last label is in, or keep the guess when it is."""
    monitors = {"window_days": 30, "allowed_lateness_days": 5, "estimation": {"min_examples": 300}}
    spec = tide_spec(monitors=monitors)
    await deployed.tell("model-specs", SpecApplied(model=MODEL, spec_revision=1, spec=spec, applied_by="me", time=NOW))
    await deployed.tell("model-versions", version(1, "champion"), key=f"{MODEL}/1")
    await deployed.tell("deployments", deployment(1, 1))
    deployed.start()
    for number in range(3):
        await deployed.tell("labelled-examples", *month(number))
    await eventually(lambda: all_counted(deployed, 3 * ANSWERS), seconds=90)
    await deployed.tell("feature-statistics", window_of_answers(3, month(3)))

    def estimates(labels: int) -> list[PerformanceEstimated]:
        found = [each for each in deployed.of(PerformanceEstimated) if each.cohort.start == month_of(3)]
        return [each for each in found if each.labelled == labels]

    (first,) = await eventually(lambda: estimates(0), seconds=60)
    assert (first.events, first.learned_on, first.version) == (ANSWERS, 3 * ANSWERS, 1)
    assert first.estimates["accuracy"].realised is None
    await deployed.tell("labelled-examples", *month(3))
    whole = (await eventually(lambda: estimates(ANSWERS), seconds=60))[-1].estimates["accuracy"]
    assert whole.lower == whole.value == whole.upper == whole.realised
    page = await eventually(lambda: all_counted(deployed, 4 * ANSWERS), seconds=60)
    assert page["estimates"][0]["estimates"]["accuracy"]["realised"] == whole.realised
    metrics = (await deployed.get("/metrics")).text
    assert 'bound="lower",figure="accuracy"' in metrics
