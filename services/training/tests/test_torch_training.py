"""The network and the trainer: what is learned, what is exported, and what a kill costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from tailrace_contracts.events import FeatureValue
from tailrace_contracts.spec import BatchLearner, Limits, NumericalLabel, parse_spec
from tailrace_models import OnnxModel, Reference
from tailrace_testing.polling import eventually
from tailrace_training.adapters.onnx_export import ExportDiffers, to_onnx, verify
from tailrace_training.adapters.torch_network import Labels, Matrix, Network, scaling_of, target_of
from tailrace_training.adapters.torch_trainer import train
from tailrace_training.adapters.trainer_process import TrainerProcess, lay_out
from tailrace_training.domain.jobs import ANSWERS, CHECKPOINT, ONNX_FILE, WEIGHTS_FILE, Job, Said
from tailrace_training.errors import TrainerDied
from tailrace_training.testing import MemoryRunFiles

LEARNER = BatchLearner(hidden=(8, 4), epochs=6, batch_size=32)
PATIENCE_SECONDS = 60


def weather(rows: int = 300) -> tuple[Matrix, Matrix]:
    """Two numbers and a word of two categories; it rains when the first number is high. Every tenth is missing."""
    chance = np.random.default_rng(3)
    numbers = chance.normal(10.0, 4.0, (rows, 2)).astype(np.float32)
    words = np.eye(2, dtype=np.float32)[chance.integers(0, 2, rows)]
    labels = (numbers[:, 0] > 10).astype(np.float32)
    numbers[::10, 1] = np.nan
    return np.concatenate([numbers, words], axis=1), labels


def job(run_id: str = "run", *, checkpoint_seconds: float = 0.0, epochs: int = 6) -> Job:
    """A job on `weather`."""
    return Job(
        run_id=run_id,
        learner=LEARNER.model_copy(update={"epochs": epochs}),
        numerical=(True, True, False, False),
        held_out=30,
        checkpoint_seconds=checkpoint_seconds,
    )


def trained(folder: Path) -> tuple[bytes, bytes, dict[str, float]]:
    """The outcome of a job that was never interrupted."""
    lay_out(job(), *weather(), folder)
    said: list[Said] = []
    train(job(), folder, said.append)
    return (folder / ONNX_FILE).read_bytes(), (folder / WEIGHTS_FILE).read_bytes(), said[-1].metrics


class PowerCutError(Exception):
    """The end of a process, as far as a training knows."""


@pytest.mark.parametrize("at_epoch", [1, 5, 6, 7, 12])
def test_interrupted_anywhere_ends_in_the_same_bytes(tmp_path: Path, at_epoch: int) -> None:
    """A training that was killed would offer another version than one that was not, and could not be audited."""
    folder = tmp_path / "interrupted"
    lay_out(job(), *weather(), folder)

    def cut(said: Said) -> None:
        if said.epoch == at_epoch and said.stage == "training":
            raise PowerCutError

    with pytest.raises(PowerCutError):
        train(job(), folder, cut)
    said: list[Said] = []
    train(job(), folder, said.append)
    found = (folder / ONNX_FILE).read_bytes(), (folder / WEIGHTS_FILE).read_bytes(), said[-1].metrics
    assert found == trained(tmp_path / "calm")
    assert [each.epoch for each in said if each.stage == "training"] == list(range(at_epoch + 1, 13))


def test_the_weights_carry_what_was_answered_before_it_was_learned(tmp_path: Path) -> None:
    """A version's reference would not know its answers, and their drift could not be judged."""
    _, weights, metrics = trained(tmp_path)
    answers = load(weights)[ANSWERS]
    assert answers.shape == (30,)
    right = (answers > 0.5) == (weather()[1][-30:] > 0.5)
    assert right.mean() == pytest.approx(metrics["accuracy"])


def test_a_damaged_checkpoint_costs_time_only(tmp_path: Path) -> None:
    """A disk that was full once would make every later attempt fail."""
    folder = tmp_path / "damaged"
    lay_out(job(), *weather(), folder)
    (folder / CHECKPOINT).write_bytes(b"half a checkpoint")
    train(job(), folder, lambda _said: None)
    assert (folder / ONNX_FILE).read_bytes() == trained(tmp_path / "calm")[0]


def test_the_network_learns_what_there_is_to_learn(tmp_path: Path) -> None:
    """Versions would be offered that have learned nothing."""
    assert trained(tmp_path / "job")[2]["accuracy"] > 0.85


def test_the_graph_answers_as_the_network_does() -> None:
    """Serving would give other answers than those that were measured, above all where a feature is missing."""
    features, _ = weather()
    network = Network(scaling_of(features, np.array([True, True, False, False])), LEARNER)
    assert verify(to_onnx(network), network, features) < 1e-5


@pytest.mark.parametrize("hidden", [(), (8,)])
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_network_without_a_hidden_layer_is_explained_exactly(hidden: tuple[int, ...], task: str) -> None:
    """A change of the export would turn a linear model's reasons into estimates, or a network's estimates into wrong reasons."""
    features, _ = weather()
    label = MILLIMETRES.model_dump(mode="json") if task == "regression" else {"name": "rain"}
    named = [
        {"name": "humidity", "type": "numerical"},
        {"name": "pressure", "type": "numerical", "on_missing": "flag"},
        {"name": "wind", "type": "categorical", "categories": ["north", "south"]},
    ]
    spec = parse_spec({"model": "rain", "owner": "w", "task": task, "label": label, "features": named})
    target = target_of(np.array([1e3, 3e3])) if task == "regression" else None
    scaling = scaling_of(features, np.array([True, True, False, False]))
    network = Network(scaling, BatchLearner(hidden=hidden), target)
    rows: list[dict[str, FeatureValue]] = [
        {"humidity": float(a), "pressure": None if np.isnan(b) else float(b), "wind": "north" if c else "south"}
        for a, b, c, _ in features[:50]
    ]
    explainer = OnnxModel.from_bytes(to_onnx(network), spec).explainer(Reference(rows, "0" * 64))
    assert explainer is not None
    assert explainer.exact is (hidden == ())


def test_a_graph_that_differs_is_not_offered() -> None:
    """A faulty export would go into service."""
    features, _ = weather()
    scaling = scaling_of(features, np.array([True, True, False, False]))
    with pytest.raises(ExportDiffers, match="not offered"):
        verify(to_onnx(Network(scaling, LEARNER)), Network(scaling, LEARNER), features)
    target = target_of(np.array([1e6, 3e6]))
    with pytest.raises(ExportDiffers, match="not offered"):
        verify(to_onnx(Network(scaling, LEARNER, target)), Network(scaling, LEARNER, target), features)


def test_one_broken_reading_does_not_flatten_the_others() -> None:
    """A sensor fault in the training set would make the feature useless."""
    features, _ = weather(2000)
    broken = features.copy()
    broken[7, 0] = 1e6
    numerical = np.array([True, True, False, False])
    assert scaling_of(broken, numerical).deviation[0] == pytest.approx(
        scaling_of(features, numerical).deviation[0], rel=0.02
    )


def test_columns_without_any_or_without_different_values_are_harmless() -> None:
    """A feature that is always missing or constant would turn every answer into NaN."""
    features = np.array([[np.nan, 5.0]] * 4, dtype=np.float32)
    network = Network(scaling_of(features, np.array([True, True])), LEARNER)
    assert np.isfinite(network.answers(np.array([[1.0, 5.0], [np.nan, 1e30]], dtype=np.float32))).all()


MILLIMETRES = NumericalLabel(name="mm", limits=Limits(min=0, max=2_000_000))


def rainfall(rows: int = 300, scale: float = 1.0) -> tuple[Matrix, Labels]:
    """The same features, and how much it rains: the more, the higher the first number."""
    features, _ = weather(rows)
    noise = np.random.default_rng(5).normal(0, 2, rows)
    return features, scale * (100 + 10 * features[:, 0].astype(np.float64) + noise).clip(0)


def measured(folder: Path, features: Matrix, labels: Labels, **changes: object) -> dict[str, float]:
    """The metrics of a regression that was never interrupted."""
    work = job(epochs=40).model_copy(update={"label": MILLIMETRES, **changes})
    lay_out(work, features, labels, folder)
    said: list[Said] = []
    train(work, folder, said.append)
    return said[-1].metrics


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_the_network_learns_numbers_of_any_size(tmp_path: Path, scale: float) -> None:
    """A regression in grams would learn, and the same in tonnes would not."""
    metrics = measured(tmp_path, *rainfall(600, scale))
    assert metrics["r2"] > 0.7
    assert metrics["mae"] < 20 * scale
    assert metrics["mae"] <= metrics["rmse"]


def test_a_few_wild_labels_do_not_rule_a_regression(tmp_path: Path) -> None:
    """One label entered in the wrong unit would bend all answers."""
    features, labels = rainfall(600)
    labels[5:500:100] = 1_500_000
    assert measured(tmp_path, features, labels)["mae"] < 30


def test_a_regression_that_is_interrupted_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """A regression that was killed would offer another version than one that was not."""
    work, folder = job().model_copy(update={"label": MILLIMETRES}), tmp_path / "interrupted"
    lay_out(work, *rainfall(), folder)

    def cut(said: Said) -> None:
        if said.epoch == 8 and said.stage == "training":
            raise PowerCutError

    with pytest.raises(PowerCutError):
        train(work, folder, cut)
    train(work, folder, lambda _said: None)
    calm = tmp_path / "calm"
    measured(calm, *rainfall(), learner=work.learner)
    assert [(folder / name).read_bytes() for name in (ONNX_FILE, WEIGHTS_FILE)] == [
        (calm / name).read_bytes() for name in (ONNX_FILE, WEIGHTS_FILE)
    ]


def test_the_graph_of_a_regression_answers_in_the_labels_unit(tmp_path: Path) -> None:
    """Serving would answer in standard deviations, or beyond the label's limits."""
    features, labels = rainfall(600, 1e3)
    measured(tmp_path, features, labels)
    spec = parse_spec(
        {
            "model": "rain",
            "owner": "w",
            "task": "regression",
            "label": MILLIMETRES.model_dump(mode="json"),
            "features": [
                {"name": "humidity", "type": "numerical"},
                {"name": "pressure", "type": "numerical"},
                {"name": "wind", "type": "categorical", "categories": ["north", "south"]},
            ],
        }
    )
    model = OnnxModel.from_bytes((tmp_path / ONNX_FILE).read_bytes(), spec)
    predictions = model.predict_matrix(features).predictions
    assert np.abs(predictions - labels).mean() < 20e3
    assert model.predict([{"humidity": -1e9, "pressure": 0.0, "wind": "north"}])[0].prediction >= 0


@pytest.fixture
async def trainer(tmp_path: Path) -> AsyncIterator[TrainerProcess]:
    """A trainer process, ended after the test."""
    found = TrainerProcess(tmp_path / "trainer")
    await found.start()
    yield found
    await found.stop()


async def process_of(trainer: TrainerProcess) -> asyncio.subprocess.Process:
    """The process as it runs."""
    assert trainer._process is not None
    return await trainer._process


async def test_the_process_trains_one_job_after_another(trainer: TrainerProcess, tmp_path: Path) -> None:
    """A second training would wait for ever, or pay for torch again."""
    found = []
    for run_id in ("one", "../two"):
        said = [each async for each in trainer.train(job(run_id), *weather(), MemoryRunFiles())]
        assert said[-1].stage == "finished"
        found.append((await trainer.result(run_id), (await process_of(trainer)).pid))
        await trainer.forget(run_id)
    assert found[0] == found[1]
    assert found[0][0] == trained(tmp_path / "here")[:2]
    assert list((tmp_path / "trainer").iterdir()) == []


async def test_killed_in_the_middle_another_goes_on(trainer: TrainerProcess, tmp_path: Path) -> None:
    """A trainer that the machine's memory guard ends would lose hours of training."""
    files, long = MemoryRunFiles(), job(epochs=100)

    async def until_killed() -> None:
        async for said in trainer.train(long, *weather(), files):
            if said.epoch == 10:
                (await process_of(trainer)).kill()

    with pytest.raises(TrainerDied, match="exit code -9"):
        await until_killed()
    elsewhere = TrainerProcess(tmp_path / "another machine")
    epochs = [said.epoch async for said in elsewhere.train(long, *weather(), files)]
    await elsewhere.stop()
    assert 10 <= min(epochs) < 200


async def test_nobody_trains_for_a_service_that_died(trainer: TrainerProcess) -> None:
    """Every killed service would leave a process behind that computes for nobody."""
    trainer.warm_up()
    process = await process_of(trainer)
    assert process.stdin is not None
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == 0


async def test_an_idle_trainer_gives_its_memory_back(tmp_path: Path) -> None:
    """Half a gigabyte would stay occupied for a training a month."""
    trainer = TrainerProcess(tmp_path / "trainer", idle_seconds=0)
    trainer.warm_up()
    process = await process_of(trainer)
    await eventually(lambda: process.returncode is not None, PATIENCE_SECONDS)
    await trainer.stop()
