"""The batch role: from a request to a candidate, with a scripted trainer. `test_torch_training.py` has the real one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tailrace_contracts.events import (
    CandidateTrained,
    Event,
    SpecApplied,
    TrainingProgressed,
    TrainingRequested,
    decode,
)
from tailrace_contracts.ranges import Log, LogRange, LogRanges
from tailrace_contracts.spec import ModelSpec, parse_spec
from tailrace_runtime.consumer import Outcome
from tailrace_runtime.errors import RetryLater
from tailrace_runtime.records import Record
from tailrace_runtime.testing import FixedClock, record
from tailrace_statistics.reference import Reference
from tailrace_testing.polling import eventually
from tailrace_training.consumers import BatchRole
from tailrace_training.domain.jobs import Said
from tailrace_training.errors import TrainingStuck
from tailrace_training.main import TOPICS_OUT
from tailrace_training.testing import (
    START,
    KnownSpecs,
    ListedLogs,
    MemoryArtefacts,
    MemoryRunFiles,
    ScriptedTrainer,
    applied,
    labelled,
    on_log,
)
from tailrace_training.trainings import Batch

REQUESTS = Log("training-requested", 0)


def spec(**batch: object) -> ModelSpec:
    """A model of one number and one word, learned in batch."""
    return parse_spec(
        {
            "model": "rain",
            "owner": "w",
            "features": [
                {"type": "numerical", "name": "humidity"},
                {"type": "categorical", "name": "wind", "categories": ["north", "south"]},
            ],
            "label": {"name": "rained"},
            "learners": {"batch": {"min_examples": 10, "max_examples": 20, **batch}},
        }
    )


def days(count: int, model: str = "rain") -> list[Record]:
    """Records of days; it rains on every other."""
    return [on_log(labelled(model, i, {"humidity": float(i), "wind": "south"}, i % 2), i) for i in range(count)]


def asked(run_id: str, first: int | None = None, last: int | None = None, *, offset: int = 0) -> Record:
    """A request for these offsets, or for the newest examples."""
    ranges = LogRanges()
    if first is not None and last is not None:
        ranges = LogRanges.of(LogRange(topic="labelled-examples", partition=0, from_offset=first, through_offset=last))
    request = TrainingRequested(
        run_id=run_id,
        model="rain",
        spec_revision=1,
        ranges=ranges,
        reason="drift",
        requested_by="monitoring",
        time=START,
    )
    return record(request, "training-requested", offset=offset, key=b"rain")


class World:
    """What outlives a process, and the process's role."""

    def __init__(self, records: Sequence[Record], trainer: ScriptedTrainer | None = None) -> None:
        self.specs = KnownSpecs(applied(spec()))
        self.logs = ListedLogs(records)
        self.artefacts = MemoryArtefacts()
        self.files = MemoryRunFiles()
        self.trainer = trainer or ScriptedTrainer()
        self.events: list[Event] = []
        self.committed = -1
        self.now = 0.0

    def role(self, **parts: float) -> BatchRole:
        """A new process's role."""
        batch = Batch(self.specs, self.logs, self.artefacts, self.files, self.trainer, FixedClock(), "1.0")
        return BatchRole(batch, TOPICS_OUT, monotonic=lambda: self.now, **parts)

    def hear(self, outcome: Outcome) -> None:
        """Publish and commit, as the consume loop does."""
        self.events += [decode(each.value) for each in outcome.emit if each.value]
        self.committed = max(self.committed, outcome.commit_through if outcome.commit_through is not None else -1)

    async def work(self, role: BatchRole, *requests: Record) -> None:
        """Hand the requests over, and tick until they are done."""
        outcome = await role.requested(requests)
        assert outcome.commit_through == -1

        async def done() -> bool:
            for each in (await role.tick()).values():
                self.hear(each)
            return self.committed >= requests[-1].offset

        await eventually(done)

    @property
    def stages(self) -> list[str]:
        """What was told, in order."""
        return [each.stage for each in self.events if isinstance(each, TrainingProgressed)]

    @property
    def candidates(self) -> list[CandidateTrained]:
        """What was offered, in order."""
        return [each for each in self.events if isinstance(each, CandidateTrained)]

    @property
    def failure(self) -> str:
        """The sentence of the run that failed."""
        return next(
            each.message for each in self.events if isinstance(each, TrainingProgressed) and each.stage == "failed"
        )


async def test_a_request_trains_on_exactly_the_ranges_that_it_names() -> None:
    """A version would claim a training set that it has not seen."""
    world = World(days(100))
    await world.work(world.role(), asked("run", 30, 59))
    ((job, features, labels),) = world.trainer.jobs
    assert features[:, 0].tolist() == [float(i) for i in range(30, 60)]
    assert features[:, 1:].tolist() == [[0.0, 1.0]] * 30
    assert labels.tolist() == [0.0, 1.0] * 15
    assert (job.numerical, job.held_out) == ((True, False, False), 3)
    (candidate,) = world.candidates
    assert str(candidate.lineage.trained_on) == "labelled-examples[0]@30..59"
    assert (candidate.lineage.examples, candidate.lineage.spec_revision, candidate.lineage.seed) == (30, 1, 7)
    assert candidate.metrics == {"accuracy": 0.9}
    assert world.stages == ["started", "training", "evaluating", "exporting", "finished"]


async def test_the_candidate_comes_with_its_reference() -> None:
    """Drift of a new version could not be measured."""
    world = World(days(50))
    await world.work(world.role(), asked("run", 0, 49))
    claim = world.candidates[0].reference
    assert claim is not None
    reference = Reference.from_bytes(world.artefacts.kept[claim.key])
    assert (reference.examples, reference.label_rate, set(reference.columns)) == (50, 0.5, {"humidity", "wind"})
    assert (reference.answers["probability"].count, reference.answers["prediction"].count) == (5, 5)


async def test_without_ranges_the_newest_examples_are_found_and_told() -> None:
    """`tailrace train` would train on old examples, or nobody could say on which."""
    world = World(days(100))
    await world.work(world.role(), asked("run"))
    started = next(each for each in world.events if isinstance(each, TrainingProgressed))
    assert str(started.ranges) == str(world.candidates[0].lineage.trained_on) == "labelled-examples[0]@80..99"


async def test_a_second_life_trains_on_the_ranges_of_the_first() -> None:
    """A training that was killed would end on other examples than it began with, and its checkpoint be nonsense."""
    world = World(days(100), ScriptedTrainer(deaths=[3]))
    role = world.role()
    await role.requested([asked("run")])
    await eventually(lambda: world.trainer.jobs)
    await role.revoked({REQUESTS})
    world.logs = ListedLogs(days(200))
    world.trainer = ScriptedTrainer()
    await world.work(world.role(), asked("run"))
    assert str(world.candidates[0].lineage.trained_on) == "labelled-examples[0]@80..99"


async def test_other_models_and_older_labels_are_left_out() -> None:
    """A version would learn another model's labels, or labels that were corrected since."""
    rain = days(30)
    correction = on_log(labelled("rain", 3, {"humidity": 3.0, "wind": "south"}, 0, label_revision=1), 30)
    fog = [each._replace(offset=31 + i) for i, each in enumerate(days(20, "fog"))]
    world = World([*rain, correction, *fog])
    await world.work(world.role(), asked("run", 0, 50))
    ((_, features, labels),) = world.trainer.jobs
    assert len(features) == 30
    assert labels[3] == 0.0


@pytest.mark.parametrize(
    ("request_record", "sentence"),
    [
        (asked("run", 0, 4), "holds 5 examples of model 'rain', expected at least 10"),
        (asked("run", 0, 999), "goes beyond"),
        (
            record(
                TrainingRequested(
                    run_id="run", model="snow", spec_revision=1, reason="r", requested_by="r", time=START
                ),
                "training-requested",
            ),
            "model 'snow' has no spec of revision 1",
        ),
    ],
)
async def test_what_cannot_lead_to_a_version_fails_with_one_sentence(request_record: Record, sentence: str) -> None:
    """Whoever asked would wait for ever, or read a traceback."""
    world = World(days(100))
    await world.work(world.role(), request_record)
    assert sentence in world.failure
    assert (world.stages[-1], world.candidates) == ("failed", [])


async def test_one_class_only_fails_with_one_sentence() -> None:
    """A version that has only ever seen dry days would be offered."""
    world = World([each for each in days(100) if each.offset % 2 == 0])
    await world.work(world.role(), asked("run", 0, 98))
    assert "only negative examples" in world.failure


def amount_spec() -> SpecApplied:
    """The same features, and how much it rains."""
    document = spec().model_dump(mode="json") | {"task": "regression", "label": {"name": "mm", "loss_scale": 50}}
    return applied(parse_spec(document))


async def test_a_regression_is_trained_on_its_numbers() -> None:
    """Millimetres would be trained on as classes, or a version come without the labels' distribution."""
    records = [on_log(labelled("rain", i, {"humidity": float(i), "wind": "south"}, i + 0.25), i) for i in range(50)]
    world = World(records)
    world.specs = KnownSpecs(amount_spec())
    await world.work(world.role(), asked("run", 0, 49))
    ((job, _, labels),) = world.trainer.jobs
    assert (str(labels.dtype), labels.tolist()) == ("float64", [i + 0.25 for i in range(50)])
    assert job.label == amount_spec().spec.label
    claim = world.candidates[0].reference
    assert claim is not None
    reference = Reference.from_bytes(world.artefacts.kept[claim.key])
    assert reference.labels is not None
    assert (reference.labels.count, reference.labels.minimum, reference.labels.maximum) == (50, 0.25, 49.25)
    assert reference.label_rate is None
    assert list(reference.answers) == ["prediction"]


async def test_one_number_only_fails_with_one_sentence() -> None:
    """A version that knows one answer would be offered."""
    records = [on_log(labelled("rain", i, {"humidity": float(i), "wind": "south"}, 7.5), i) for i in range(50)]
    world = World(records)
    world.specs = KnownSpecs(amount_spec())
    await world.work(world.role(), asked("run", 0, 49))
    assert "only examples with the label 7.5" in world.failure


async def test_no_examples_at_all_fails_with_one_sentence() -> None:
    """`tailrace train` on a new model would search for ever."""
    world = World(days(10, "fog"))
    await world.work(world.role(), asked("run"))
    assert world.failure.startswith("there are no labelled examples of model 'rain'")


async def test_ranges_that_are_gone_fail_with_one_sentence() -> None:
    """A training on less than it names would be offered as if it had seen all."""
    world = World(days(100))
    world.logs.begins = {Log("labelled-examples", 0): 50}
    await world.work(world.role(), asked("run", 30, 80))
    assert "neither in Kafka nor in the archive" in world.failure


async def test_a_model_without_a_batch_learner_fails_with_one_sentence() -> None:
    """The request would stop the partition for all other models."""
    world = World(days(100))
    world.specs.apply(
        applied(spec().model_copy(update={"learners": spec().learners.model_copy(update={"batch": None})}))
    )
    await world.work(world.role(), asked("run", 0, 50))
    assert "add learners.batch to its spec" in world.failure


async def test_the_same_request_again_offers_the_same_candidate() -> None:
    """A crash after the offer would make a second, different version of the same run."""
    world = World(days(100))
    await world.work(world.role(), asked("run", 0, 50))
    await world.work(world.role(), asked("run", 0, 50, offset=1))
    first, second = world.candidates
    assert first == second
    assert len(world.trainer.jobs) == 1


async def test_a_trainer_that_dies_is_followed_by_another() -> None:
    """One death by the machine's memory guard would fail the run."""
    world = World(days(100), ScriptedTrainer(deaths=[2]))
    await world.work(world.role(), asked("run", 0, 50))
    assert len(world.trainer.jobs) == 3
    assert world.candidates


async def test_a_trainer_that_always_dies_fails_the_run() -> None:
    """The service would train the same run for ever."""
    world = World(days(100), ScriptedTrainer(deaths=[3]))
    await world.work(world.role(), asked("run", 0, 50))
    assert "exit code -9 while it trained, 3 times; give it more memory" in world.failure


async def test_an_export_that_differs_fails_the_run() -> None:
    """A graph that answers otherwise than its network would go into service."""
    world = World(days(100), ScriptedTrainer([Said(stage="failed", message="the exported ONNX graph differs")]))
    await world.work(world.role(), asked("run", 0, 50))
    assert world.failure == "the exported ONNX graph differs"


async def test_progress_is_thinned_out() -> None:
    """A training of ten thousand epochs would flood its topic."""
    epochs = [Said(stage="training", epoch=i, epochs=100, loss=0.1) for i in range(100)]
    world = World(days(100), ScriptedTrainer([*epochs, Said(stage="finished", epoch=100, epochs=100)]))
    await world.work(world.role(), asked("run", 0, 50))
    assert world.stages == ["started", "training", "finished"]


async def test_requests_are_done_in_order_and_committed_when_done() -> None:
    """A request would be lost when the service stops in the middle of the one before it."""
    world = World(days(100))
    role = world.role()
    broken = record(b"{", "training-requested", offset=1)
    outcome = await role.requested([asked("a", 0, 50), broken, asked("b", 0, 50, offset=2)])
    assert [each.code for each in outcome.parked] == ["unreadable-event"]
    assert outcome.commit_through == -1
    await world.work(role, asked("c", 0, 50, offset=3))
    assert [each.run_id for each in world.candidates] == ["a", "b", "c"]


async def test_files_of_a_run_that_is_over_are_let_go() -> None:
    """Every training would leave its checkpoint behind."""
    world = World(days(100))
    await world.work(world.role(), asked("run", 0, 50))
    assert sorted(name for _, name in world.files.kept) == ["plan.json", "result.json"]
    assert world.trainer.forgotten == ["run"]


async def test_a_store_that_is_away_is_waited_for() -> None:
    """An outage of the object store would fail a training, and nobody would ask again."""
    world = World(days(100))
    world.artefacts.failures = [RetryLater("the store is away", 0.0)] * 3
    await world.work(world.role(), asked("run", 0, 50))
    assert world.candidates


async def test_a_store_that_stays_away_stops_the_service() -> None:
    """A training would hang for ever without anybody being told."""
    world = World(days(100))
    world.artefacts.failures = [RetryLater("the store is away", 0.0)]
    role = world.role(retry_limit_seconds=-1)
    with pytest.raises(TrainingStuck, match="run stopped after 0 s: the store is away"):
        await world.work(role, asked("run", 0, 50))


async def test_features_of_examples_are_encoded_as_serving_encodes_them() -> None:
    """A version would be trained on other columns than it is asked with."""
    strange = on_log(labelled("rain", 0, {"humidity": None, "wind": "west"}, 1), 0)
    world = World([strange, *days(40)[1:]])
    await world.work(world.role(), asked("run", 0, 39))
    ((_, features, _),) = world.trainer.jobs
    assert np.isnan(features[0, 0])
    assert features[0, 1:].tolist() == [0.0, 0.0]
