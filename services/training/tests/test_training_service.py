"""The training service as users run it: a process of its own, the real broker, an object store in a folder."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tailrace_contracts.events import (
    CandidateTrained,
    Event,
    ExampleLabelled,
    RevisionTrained,
    TrainingProgressed,
    TrainingRequested,
)
from tailrace_contracts.ranges import LogRange, LogRanges
from tailrace_contracts.spec import ModelSpec, parse_spec
from tailrace_models import load
from tailrace_runtime.follower import Follower
from tailrace_runtime.log import read_ranges
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Outgoing, Record, outgoing
from tailrace_runtime.topics import create_all
from tailrace_testing.broker import Broker
from tailrace_testing.polling import eventually
from tailrace_training.adapters.river_runs import RiverRuns
from tailrace_training.handlers import Online, Runs, learn
from tailrace_training.settings import TrainingSettings
from tailrace_training.testing import (
    START,
    KnownCheckpoints,
    KnownSpecs,
    KnownVersions,
    MemoryArtefacts,
    applied,
    labelled,
)

pytestmark = pytest.mark.timeout(240)

T = TypeVar("T", bound=Event)
KEY = "6b" * 32
PATIENCE_SECONDS = 60
EVENTS = ("revision-trained", "candidate-trained", "training-progressed")


def spec(model: str = "rain") -> ModelSpec:
    """Rain from humidity and pressure, learned by both."""
    return parse_spec(
        {
            "model": model,
            "owner": "weather",
            "features": [{"type": "numerical", "name": "humidity"}, {"type": "numerical", "name": "pressure"}],
            "label": {"name": "rained"},
            "learners": {
                "batch": {"min_examples": 100, "max_examples": 400, "epochs": 200, "hidden": [16]},
                "online": {"min_examples": 50, "revision_seconds": 0.1},
            },
        }
    )


def days(count: int, start: int = 0, model: str = "rain") -> list[ExampleLabelled]:
    """Days on which it rains when it is humid, mostly."""
    chance = random.Random(1)
    rows = [(chance.gauss(0, 1), chance.gauss(0, 1), chance.gauss(0, 0.5)) for _ in range(start + count)]
    return [
        labelled(model, number, {"humidity": humid, "pressure": pressure}, int(humid + noise > 0))
        for number, (humid, pressure, noise) in enumerate(rows)
    ][start:]


class Deployment:
    """Topics under a prefix of their own, and everything that training says on them."""

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings
        self.objects = ObjectStore.from_url(settings.object_store)
        self.events: list[Event] = []
        self._producer = Producer(settings)
        self._followers = [Follower(settings, topic, self._heard) for topic in EVENTS]

    def _heard(self, event: Event | None, _record: object) -> None:
        if event is not None:
            self.events.append(event)

    async def start(self, *specs: ModelSpec) -> None:
        """Create the topics, apply the specs, listen."""
        await create_all(self.settings)
        await self._producer.start()
        await self.publish([outgoing(applied(each), "model-specs", each.model) for each in specs])
        for follower in self._followers:
            await follower.start()

    async def stop(self) -> None:
        """Disconnect."""
        for follower in self._followers:
            await follower.stop()
        await self._producer.stop()

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Publish, acknowledged."""
        await self._producer.send_all(records)

    async def label(self, examples: Sequence[ExampleLabelled], partition: int = 0) -> None:
        """Publish examples where the joiner would."""
        await self.publish([outgoing(each, "labelled-examples", each.model, partition=partition) for each in examples])

    async def ask(self, run_id: str, ranges: LogRanges | None = None) -> None:
        """Ask for a training."""
        request = TrainingRequested(
            run_id=run_id,
            model="rain",
            spec_revision=1,
            ranges=ranges or LogRanges(),
            reason="a test",
            requested_by="a test",
            time=START,
        )
        await self.publish([outgoing(request, "training-requested", "rain")])

    def of(self, kind: type[T]) -> list[T]:
        """Everything of one kind that was said so far."""
        return [each for each in self.events if isinstance(each, kind)]

    def stages(self, run_id: str) -> list[str]:
        """The stages that a run went through."""
        found = [each.stage for each in self.of(TrainingProgressed) if each.run_id == run_id]
        return [each for i, each in enumerate(found) if i == 0 or found[i - 1] != each]

    async def learned(self, count: int, model: str = "rain") -> RevisionTrained:
        """The first revision of the model with so many examples."""

        def newest() -> list[RevisionTrained]:
            return [each for each in self.of(RevisionTrained) if each.examples >= count and each.model == model]

        return (await eventually(newest, PATIENCE_SECONDS))[0]

    @asynccontextmanager
    async def service(self, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A process of the service; killed at the end if it still runs."""
        settings = self.settings
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tailrace_training.main",
            env={
                **os.environ,
                "TAILRACE_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
                "TAILRACE_TOPIC_PREFIX": settings.topic_prefix,
                "TAILRACE_OBJECT_STORE": settings.object_store,
                "TAILRACE_STATE_DIR": str(settings.state_dir),
                "TAILRACE_SIGNING_KEY_FILE": str(settings.signing_key_file),
                "TAILRACE_PORT": "0",
                "TAILRACE_TRAINER_CHECKPOINT_SECONDS": "0",
                "TAILRACE_PROGRESS_SECONDS": "0",
                **environment,
            },
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.fixture
async def deployment(kafka: Broker, tmp_path: Path) -> AsyncIterator[Deployment]:
    """Topics with the spec of `rain` applied."""
    key = tmp_path / "signing.key"
    key.write_text(KEY)
    settings = TrainingSettings(
        kafka_bootstrap=kafka.bootstrap,
        topic_prefix=kafka.unique("training") + "-",
        object_store=(tmp_path / "objects").as_uri(),
        state_dir=tmp_path / "state",
        signing_key_file=key,
    )
    found = Deployment(settings)
    await found.start(spec())
    yield found
    await found.stop()


async def test_examples_become_revisions_and_one_candidate(deployment: Deployment) -> None:
    """Labels would come in, and the online version would never be offered, or never change."""
    async with deployment.service() as service:
        await deployment.label(days(120))
        newest = await deployment.learned(120)
        service.send_signal(signal.SIGTERM)
        assert await service.wait() == 0
    assert str(newest.trained_on) == "labelled-examples[0]@0..119"
    (candidate,) = deployment.of(CandidateTrained)
    assert (candidate.learner, candidate.run_id) == ("river", newest.run_id)
    data = await deployment.objects.get_artefact(newest.artefact)
    model = load(newest.artefact.media_type, data, signing_key=KEY.encode(), spec=spec())
    assert model.predict([{"humidity": 3.0, "pressure": 0.0}])[0].prediction == 1


async def test_killed_learner_ends_in_the_same_bytes(deployment: Deployment) -> None:
    """After a kill the model would have forgotten examples, or learned some twice."""
    examples = days(600)
    async with deployment.service(TAILRACE_ROLES="online") as service:
        await deployment.label(examples[:400])
        await deployment.learned(100)
        await deployment.label(examples[400:500])
        service.kill()
    async with deployment.service(TAILRACE_ROLES="online"):
        await deployment.label(examples[500:])
        newest = await deployment.learned(600)
    records = [each async for batch in read_ranges(deployment.settings, newest.trained_on) for each in batch]
    assert await deployment.objects.get_artefact(newest.artefact) == undisturbed(records)


def undisturbed(records: Sequence[Record], model: str = "rain") -> bytes:
    """The artefact of a run that learned all of the log at once, in this process."""
    runs: Runs = {}
    learners = RiverRuns(KEY.encode())
    online = Online(
        KnownSpecs(applied(spec(model))), KnownCheckpoints(), MemoryArtefacts(), learners, KnownVersions(), "1.0"
    )
    learn(records, runs, online)
    return learners.seal(runs[model])


async def test_two_processes_share_the_models_and_one_takes_over(deployment: Deployment) -> None:
    """A second process would learn nothing, or both the same; and after the first one's death its models would stand."""
    await deployment.publish([outgoing(applied(spec("fog")), "model-specs", "fog")])
    logs = {"rain": 0, "fog": 3}
    async with (
        deployment.service(TAILRACE_ROLES="online", TAILRACE_INSTANCE="a") as first,
        deployment.service(TAILRACE_ROLES="online", TAILRACE_INSTANCE="b"),
    ):
        for model, partition in logs.items():
            await deployment.label(days(300, model=model), partition)
        for model in logs:
            await deployment.learned(300, model)
        for model, partition in logs.items():
            await deployment.label(days(100, 300, model), partition)
        first.kill()
        for model, partition in logs.items():
            await deployment.label(days(200, 400, model), partition)
        for model in logs:
            newest = await deployment.learned(600, model)
            records = [each async for batch in read_ranges(deployment.settings, newest.trained_on) for each in batch]
            assert await deployment.objects.get_artefact(newest.artefact) == undisturbed(records, model)


async def test_a_request_becomes_a_version(deployment: Deployment) -> None:
    """A retraining would be asked for, and nothing would come of it."""
    await deployment.label(days(500))
    ranges = LogRanges.of(LogRange(topic="labelled-examples", partition=0, from_offset=50, through_offset=449))
    async with deployment.service(TAILRACE_ROLES="batch"):
        await deployment.ask("run-1", ranges)
        (candidate,) = await eventually(lambda: deployment.of(CandidateTrained), PATIENCE_SECONDS)
        await eventually(lambda: "finished" in deployment.stages("run-1"), PATIENCE_SECONDS)
    assert deployment.stages("run-1") == ["started", "training", "evaluating", "training", "exporting", "finished"]
    assert (candidate.lineage.trained_on, candidate.lineage.examples) == (ranges, 400)
    assert candidate.metrics["accuracy"] > 0.7
    assert candidate.reference is not None
    assert candidate.resume_artefact is not None
    data = await deployment.objects.get_artefact(candidate.artefact)
    model = load(candidate.artefact.media_type, data, signing_key=b"", spec=spec())
    assert [each.prediction for each in model.predict([{"humidity": 2.0, "pressure": None}, {"humidity": -2.0}])] == [
        1,
        0,
    ]


async def test_killed_in_the_middle_of_training_goes_on_and_offers_once(deployment: Deployment) -> None:
    """A deployment in the middle of a training would throw it away, or offer two versions of it."""
    await deployment.label(days(500))
    async with deployment.service(TAILRACE_ROLES="batch") as service:
        await deployment.ask("whole")
        await deployment.ask("killed")
        await eventually(
            lambda: any(e.epoch >= 5 for e in deployment.of(TrainingProgressed) if e.run_id == "killed"),
            PATIENCE_SECONDS,
        )
        service.kill()
    before = len(deployment.events)
    async with deployment.service(TAILRACE_ROLES="batch"):
        await eventually(lambda: "finished" in deployment.stages("killed"), PATIENCE_SECONDS)
    resumed = [
        e.epoch for e in deployment.events[before:] if isinstance(e, TrainingProgressed) and e.stage == "training"
    ]
    assert min(resumed) > 1
    whole, killed = await eventually(lambda: deployment.of(CandidateTrained)[1:] and deployment.of(CandidateTrained))
    assert (whole.run_id, killed.run_id) == ("whole", "killed")
    assert (whole.artefact, whole.resume_artefact) == (killed.artefact, killed.resume_artefact)
