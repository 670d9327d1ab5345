"""The online role: learning, checkpoints, resuming. On fakes; `test_training_service.py` has the real broker."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

from tailrace_contracts.events import CandidateTrained, Event, RevisionTrained, SpecApplied, decode
from tailrace_contracts.ranges import Log
from tailrace_contracts.spec import ModelSpec, parse_spec
from tailrace_models import RIVER, ArtefactError, load
from tailrace_runtime.consumer import Outcome
from tailrace_runtime.errors import RetryLater
from tailrace_runtime.records import Record
from tailrace_runtime.testing import FixedClock
from tailrace_training.adapters.river_runs import RiverRuns
from tailrace_training.consumers import OnlineRole
from tailrace_training.errors import CheckpointUnusable
from tailrace_training.handlers import Online
from tailrace_training.main import TOPICS_OUT
from tailrace_training.testing import (
    KnownCheckpoints,
    KnownSpecs,
    KnownVersions,
    MemoryArtefacts,
    applied,
    labelled,
    on_log,
)

T = TypeVar("T", bound=Event)
KEY = b"0123456789abcdef0123456789abcdef"
LOG = Log("labelled-examples", 0)


def spec(model: str = "rain", **online: object) -> ModelSpec:
    """A model of two numbers with an online learner."""
    features = [{"type": "numerical", "name": "humidity"}, {"type": "numerical", "name": "pressure"}]
    learners = {"online": {"min_examples": 20, "revision_seconds": 1, "checkpoint_examples": 50, **online}}
    return parse_spec(
        {"model": model, "owner": "w", "features": features, "label": {"name": "rained"}, "learners": learners}
    )


def days(count: int, model: str = "rain", start: int = 0) -> list[Record]:
    """Records of days on which it rains when it is humid."""
    chance = random.Random(model)
    rows = [(chance.gauss(0, 1), chance.gauss(0, 1)) for _ in range(start + count)][start:]
    return [
        on_log(labelled(model, start + i, {"humidity": h, "pressure": p}, int(h > 0)), start + i)
        for i, (h, p) in enumerate(rows)
    ]


class World:
    """What outlives a process: topics and the object store; and the clock."""

    def __init__(self, *specs: SpecApplied) -> None:
        self.specs = KnownSpecs(*specs)
        self.artefacts = MemoryArtefacts()
        self.versions = KnownVersions()
        self.events: list[Event] = []
        self.committed = -1
        self.now = 100.0

    async def process(self) -> OnlineRole:
        """A new process that owns the log."""
        published = KnownCheckpoints([each for each in self.events if isinstance(each, RevisionTrained)])
        online = Online(self.specs, published, self.artefacts, RiverRuns(KEY), self.versions, "1.0", kept_revisions=2)
        role = OnlineRole(online, TOPICS_OUT, FixedClock(), lambda: self.now)
        await role.assigned({LOG})
        return role

    def hear(self, outcome: Outcome) -> None:
        """Publish and commit, as the consume loop does."""
        self.events += [decode(each.value) for each in outcome.emit if each.value]
        if outcome.commit_through is not None:
            self.committed = max(self.committed, outcome.commit_through)

    async def read(self, role: OnlineRole, records: Sequence[Record], batch: int = 7) -> None:
        """Hand the uncommitted records over in batches."""
        done = max(self.committed, role._read.get(LOG, -1))
        rest = [record for record in records if record.offset > done]
        for start in range(0, len(rest), batch):
            self.hear(await role.learned(rest[start : start + batch]))
            self.now += 0.3

    async def settle(self, role: OnlineRole) -> None:
        """Let the time pass after which everything learned is published."""
        self.now += 10
        for outcome in (await role.tick()).values():
            self.hear(outcome)

    def newest(self) -> bytes:
        """The artefact of the newest revision."""
        return self.artefacts.kept[self.of(RevisionTrained)[-1].artefact.key]

    def of(self, kind: type[T]) -> list[T]:
        """The published events of one kind."""
        return [each for each in self.events if isinstance(each, kind)]


async def uninterrupted(records: Sequence[Record], *specs: SpecApplied) -> World:
    """A world in which one process has read everything."""
    world = World(*(specs or [applied(spec())]))
    role = await world.process()
    await world.read(role, records)
    await world.settle(role)
    return world


async def test_every_example_is_learned_and_published() -> None:
    """Labels would come, and the online version would never know."""
    world = await uninterrupted(days(100))
    newest = world.of(RevisionTrained)[-1]
    assert (newest.examples, str(newest.trained_on)) == (100, "labelled-examples[0]@0..99")
    predictor = load(RIVER, world.newest(), signing_key=KEY, spec=spec())
    wet, dry = predictor.predict([{"humidity": 2.0, "pressure": 0.0}, {"humidity": -2.0, "pressure": 0.0}])
    assert (wet.prediction, dry.prediction) == (1, 0)
    assert world.committed == 99


async def test_revisions_keep_the_pace_that_the_spec_sets() -> None:
    """A revision for every batch would flood serving; none between checkpoints would leave it behind."""
    world = await uninterrupted(days(100))
    numbers = [each.revision for each in world.of(RevisionTrained)]
    assert numbers == list(range(len(numbers)))
    assert 4 <= len(numbers) <= 6


async def test_a_checkpoint_is_written_after_so_many_examples() -> None:
    """With a slow pace a crash would cost hours of learning."""
    world = World(applied(spec(revision_seconds=1e6, checkpoint_examples=30)))
    await world.read(await world.process(), days(100), batch=10)
    assert [each.examples for each in world.of(RevisionTrained)] == [10, 40, 70, 100]


async def test_nothing_is_published_while_nothing_is_new() -> None:
    """An idle model would publish revisions for ever."""
    world = await uninterrupted(days(10))
    before = len(world.events)
    role = await world.process()
    await world.settle(role)
    assert len(world.events) == before


async def test_the_candidate_is_offered_once_with_its_metrics() -> None:
    """The registry would get no version, or one for every revision."""
    world = await uninterrupted(days(100))
    (candidate,) = world.of(CandidateTrained)
    assert (candidate.learner, candidate.continual, candidate.lineage.seed) == ("river", True, 7)
    assert 20 <= candidate.lineage.examples < 60
    assert candidate.metrics["accuracy"] > 0.7
    assert candidate.run_id == world.of(RevisionTrained)[-1].run_id


async def test_a_resumed_run_offers_its_candidate_again() -> None:
    """A crash between the two publications would leave the model without its online version for ever."""
    world = await uninterrupted(days(100))
    records = days(120)
    role = await world.process()
    await world.read(role, records)
    await world.settle(role)
    first, second = world.of(CandidateTrained)
    assert first.run_id == second.run_id


async def crash_before_checkpoint(world: World, role: OnlineRole, records: Sequence[Record]) -> None:
    """Learn without publishing anything."""
    await role.learned(records[world.committed + 1 : world.committed + 20])


async def crash_after_artefact(world: World, role: OnlineRole, records: Sequence[Record]) -> None:
    """Write the checkpoint's artefact, and die before the events are out."""
    world.now += 10
    outcome = await role.learned(records[world.committed + 1 : world.committed + 20])
    assert outcome.emit


async def crash_before_commit(world: World, role: OnlineRole, records: Sequence[Record]) -> None:
    """Publish, and die before the offset is committed."""
    world.now += 10
    outcome = await role.learned(records[world.committed + 1 : world.committed + 20])
    outcome.commit_through = -1
    world.hear(outcome)


@pytest.mark.parametrize("algorithm", ["logistic-regression", "hoeffding-adaptive-tree"])
@pytest.mark.parametrize("crash", [crash_before_checkpoint, crash_after_artefact, crash_before_commit])
async def test_killed_anywhere_ends_in_the_same_bytes(crash: Callable[..., object], algorithm: str) -> None:
    """After a crash the model would have forgotten examples, or learned some twice."""
    records = days(300)
    world = World(applied(spec(algorithm=algorithm)))
    for part in (60, 130, 220):
        role = await world.process()
        await world.read(role, records[:part], batch=11)
        await crash(world, role, records)  # type: ignore[misc]  # a coroutine function
    role = await world.process()
    await world.read(role, records, batch=5)
    await world.settle(role)
    assert world.newest() == (await uninterrupted(records, applied(spec(algorithm=algorithm)))).newest()


def amounts(count: int) -> list[Record]:
    """Records of days, and how much it rains on them: the more, the more humid."""
    chance = random.Random(3)
    rows = [(chance.gauss(0, 1), chance.gauss(0, 1)) for _ in range(count)]
    return [
        on_log(labelled("rain", i, {"humidity": h, "pressure": p}, 50 + 20 * h + chance.gauss(0, 1)), i)
        for i, (h, p) in enumerate(rows)
    ]


@pytest.mark.parametrize("algorithm", ["linear-regression", "hoeffding-adaptive-tree"])
async def test_a_regression_is_learned_offered_and_resumed(algorithm: str) -> None:
    """A regression could not be learned online, or a crash would change what it has learned."""
    document = spec(algorithm="hoeffding-adaptive-tree").model_dump(mode="json")
    document["learners"]["online"]["algorithm"] = algorithm
    told = applied(parse_spec({**document, "task": "regression", "label": {"name": "mm", "loss_scale": 50}}))
    records, world = amounts(300), World(told)
    role = await world.process()
    await world.read(role, records[:130], batch=11)
    role = await world.process()
    await world.read(role, records, batch=5)
    await world.settle(role)
    assert world.newest() == (await uninterrupted(records, told)).newest()
    metrics = world.of(CandidateTrained)[0].metrics
    assert set(metrics) == {"mae", "rmse", "r2"}
    model = load(RIVER, world.newest(), signing_key=KEY, spec=told.spec)
    (dry, wet) = model.predict([{"humidity": -1.0, "pressure": 0.0}, {"humidity": 1.0, "pressure": 0.0}])
    assert wet.prediction - dry.prediction > 20


async def test_a_store_that_is_away_changes_nothing() -> None:
    """An outage of the object store would commit offsets whose examples are in no checkpoint."""
    world = World(applied(spec()), applied(spec("fog")))
    role = await world.process()
    fog = days(10, "fog")
    mixed = [*days(10), *(each._replace(offset=each.offset + 10) for each in fog)]
    world.artefacts.failures = [None, RetryLater("the store is away")]
    with pytest.raises(RetryLater):
        await role.learned(mixed)
    outcome = await role.learned(mixed)
    assert [(each.key, each.topic) for each in outcome.emit] == [
        (b"rain", "revision-trained"),
        (b"fog", "revision-trained"),
    ]
    assert outcome.commit_through == 19


async def test_superseded_artefacts_are_deleted_behind_the_one_in_use() -> None:
    """A learner would fill the object store, two artefacts a second; or delete what serving is about to load."""
    world = World(applied(spec()))
    role = await world.process()
    await world.read(role, days(100))
    published = world.of(RevisionTrained)
    await world.settle(role)
    assert all(each.artefact.key in world.artefacts.kept for each in published)
    world.versions.revisions[published[0].run_id] = 3
    await world.settle(role)
    assert [each.revision for each in published if each.artefact.key not in world.artefacts.kept] == [0]


async def test_examples_that_come_twice_are_learned_once() -> None:
    """The joiner's crash would be learned as twice as many rainy days."""
    records = days(50)
    again = [record._replace(offset=record.offset + 10) for record in records[40:]]
    doubled = await uninterrupted([*records, *again])
    assert doubled.of(RevisionTrained)[-1].examples == 50


async def test_an_example_under_another_trigger_is_the_same_example() -> None:
    """After a rebuilt join, examples whose halves came in another order would be learned twice."""
    records = days(50)
    example = labelled("rain", 49, {"humidity": 1.0, "pressure": 1.0}, 1)
    other = example.model_copy(update={"trigger": example.trigger.model_copy(update={"topic": "predictions"})})
    world = await uninterrupted([*records, on_log(other, 50)])
    assert world.of(RevisionTrained)[-1].examples == 50


async def test_a_correction_is_learned_and_not_scored() -> None:
    """A corrected label would be ignored, or count as a second prediction in the accuracy."""
    correction = labelled("rain", 50, {"humidity": 1.0, "pressure": 1.0}, 0, label_revision=1)
    world = World(applied(spec()))
    role = await world.process()
    await world.read(role, [*days(50), on_log(correction, 50)])
    run = role.runs[LOG]["rain"]
    assert (run.learner.examples, run.prequential.examples) == (51, 50)


async def test_models_share_a_log() -> None:
    """One model's checkpoint would commit another model's unlearned examples away."""
    rain, fog = days(40), days(40, "fog")
    mixed = [
        each._replace(offset=i) for i, each in enumerate(day for pair in zip(rain, fog, strict=True) for day in pair)
    ]
    world = World(applied(spec()), applied(spec("fog", revision_seconds=1e6, checkpoint_examples=1_000)))
    role = await world.process()
    await world.read(role, mixed[:41])
    assert world.committed < 41
    role = await world.process()
    await world.read(role, mixed)
    await world.settle(role)
    counts = {run.model: run.learner.examples for run in role.runs[LOG].values()}
    assert counts == {"rain": 40, "fog": 40}


async def test_a_new_question_begins_a_new_run() -> None:
    """After a change of features the learner would go on with weights for features that are gone."""
    world = await uninterrupted(days(60))
    changed = spec().model_copy(update={"features": spec().features[:1]})
    world.specs.apply(applied(changed, 2))
    role = await world.process()
    await world.read(role, days(100))
    await world.settle(role)
    newest = world.of(RevisionTrained)[-1]
    assert newest.run_id.startswith("rain-online-2-")
    assert (newest.examples, str(newest.trained_on)) == (40, "labelled-examples[0]@60..99")


async def test_a_spec_that_changes_while_it_runs_begins_a_new_run() -> None:
    """The new learner of an applied spec would wait for the next restart."""
    world = World(applied(spec()))
    role = await world.process()
    await world.read(role, days(60))
    world.specs.apply(applied(spec(seed=8), 2))
    await world.read(role, days(100))
    assert role.runs[LOG]["rain"].run_id.startswith("rain-online-2-")


async def test_a_learner_that_was_away_names_the_gap() -> None:
    """The lineage would claim examples that the version has never seen."""
    world = World(applied(spec()))
    role = await world.process()
    await world.read(role, days(40))
    without = spec().model_copy(update={"learners": spec().learners.model_copy(update={"online": None})})
    world.specs.apply(applied(without, 2))
    await world.read(role, days(60))
    world.specs.apply(applied(spec(), 3))
    await world.read(role, days(80))
    await world.settle(role)
    ranges = world.of(RevisionTrained)[-1].trained_on
    assert [str(each) for each in ranges] == ["labelled-examples[0]@0..39", "labelled-examples[0]@60..79"]


async def test_a_spec_that_comes_late_is_waited_for() -> None:
    """The first examples of a new model would be dead letters."""
    world = World()
    world.specs.coming.append(applied(spec()))
    role = await world.process()
    outcome = await role.learned(days(5))
    assert not outcome.parked
    assert role.runs[LOG]["rain"].learner.examples == 5


async def test_what_can_never_be_learned_is_parked() -> None:
    """One broken record would stop the learner, or vanish."""
    world = World(applied(spec()))
    role = await world.process()
    strange = on_log(labelled("rain", 1, {"humidity": 1.0}, 5), 1)
    broken = strange._replace(offset=2, value=b"{")
    nobodys = on_log(labelled("snow", 3, {"humidity": 1.0}, 1), 3)
    outcome = await role.learned([*days(1), strange, broken, nobodys])
    assert [each.code for each in outcome.parked] == ["unknown-class", "unreadable-event", "unknown-model"]
    assert role.runs[LOG]["rain"].learner.examples == 1


@pytest.mark.parametrize("damage", ["missing", "changed", "nonsense"])
async def test_an_unusable_checkpoint_stops_the_service_with_one_sentence(damage: str) -> None:
    """The learner would begin at zero, and nobody would know why the model got worse."""
    world = await uninterrupted(days(60))
    key = world.of(RevisionTrained)[-1].artefact.key
    data = world.artefacts.kept.pop(key)
    if damage != "missing":
        world.artefacts.kept[key] = data[:-1] + b"x" if damage == "changed" else b"nonsense"
    with pytest.raises(CheckpointUnusable, match=rf"cannot resume from its revision \d+, artefact {key}.*seed"):
        await world.process()


async def test_a_checkpoint_of_another_key_is_not_unpickled() -> None:
    """Whoever can write to the object store could run code in the training service."""
    world = await uninterrupted(days(60))
    with pytest.raises(ArtefactError, match="signing key"):
        RiverRuns(b"another key, also 32 bytes long!").unseal(world.newest(), world.of(RevisionTrained)[-1], LOG)
