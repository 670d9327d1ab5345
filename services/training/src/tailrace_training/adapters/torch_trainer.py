"""One job with torch: train for the measurement, train for the version, export, verify.

Phase 0 leaves the newest examples out and is measured on them; phase 1 learns all. The checkpoint holds the phase, the
epoch, weights and optimizer state, and phase 0's metrics and answers once they are known. The answers on examples that were
not learned are what later answers are compared with, so the finished weights carry them too.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file

from tailrace_training.adapters.onnx_export import ExportDiffers, to_onnx, verify
from tailrace_training.adapters.torch_network import Labels, Matrix, Network, Training, scaling_of, target_of
from tailrace_training.domain.jobs import ANSWERS, CHECKPOINT, EXAMPLES, ONNX_FILE, WEIGHTS_FILE, Job, Said, Say
from tailrace_training.domain.metrics import errors, scores

_PROBES = 512


def train(job: Job, folder: Path, say: Say) -> None:
    """Do the job in this folder, from its checkpoint where it has one; `say` tells how far it is."""
    torch.set_num_threads(job.threads)
    if device_of(job.device).type == "cuda":
        torch.use_deterministic_algorithms(mode=True)
    data = load_file(folder / EXAMPLES)
    _Run(job, folder, say, data["features"], data["labels"]).through()


class _Run:
    def __init__(self, job: Job, folder: Path, say: Say, features: Matrix, labels: Labels) -> None:
        self.job = job
        self.folder = folder
        self.say = say
        self.features = features
        self.labels = labels
        self.device = device_of(job.device)
        self.metrics: dict[str, float] = {}
        self.answers = np.empty(0, np.float32)
        self.saved_at = time.monotonic()

    def through(self) -> None:
        """All phases that remain."""
        resumed = self._restored()
        kept = len(self.labels) - self.job.held_out
        if resumed is None or resumed.phase == 0:
            training = self._phase(0, kept, resumed)
            self._said("evaluating", training)
            self.metrics = self._measured(training.network, kept)
            resumed = None
        final = self._phase(1, len(self.labels), resumed)
        self._said("exporting", final)
        self._exported(final)

    def _fresh(self, phase: int, count: int) -> Training:
        torch.manual_seed(self.job.learner.seed)
        scaling = scaling_of(self.features[:count], np.array(self.job.numerical))
        target = target_of(self.labels[:count]) if self.job.label else None
        return Training(Network(scaling, self.job.learner, target).to(self.device), self.job.learner, phase)

    def _phase(self, phase: int, count: int, resumed: Training | None) -> Training:
        training = resumed or self._fresh(phase, count)
        for loss in training.epochs(self.features[:count], self.labels[:count]):
            self._said("training", training, loss=loss, checkpoint=self._checkpointed(training))
        return training

    def _measured(self, network: Network, kept: int) -> dict[str, float]:
        self.answers = network.answers(self.features[kept:])
        answers, labels = self.answers.astype(np.float64), self.labels[kept:]
        if self.job.label is None:
            found = scores(answers, labels.astype(np.bool_))
        else:
            limits = self.job.label.limits
            found = errors(answers.clip(limits.min, limits.max), labels.astype(np.float64))
        return {**found, "evaluated_on": float(len(self.labels) - kept)}

    def _exported(self, final: Training) -> None:
        network = final.network.to("cpu")
        data = to_onnx(network)
        try:
            verify(data, network, self.features[-_PROBES:])
        except ExportDiffers as problem:
            self.say(Said(stage="failed", message=str(problem)))
            return
        _write(self.folder / ONNX_FILE, data)
        self._save(self.folder / WEIGHTS_FILE, final)
        total = 2 * self.job.learner.epochs
        self.say(Said(stage="finished", epoch=total, epochs=total, metrics=self.metrics))

    def _said(
        self,
        stage: Literal["training", "evaluating", "exporting"],
        training: Training,
        *,
        loss: float | None = None,
        checkpoint: bool = False,
    ) -> None:
        epochs = self.job.learner.epochs
        epoch = training.phase * epochs + training.epoch
        self.say(Said(stage=stage, epoch=epoch, epochs=2 * epochs, loss=loss, checkpoint=checkpoint))

    def _checkpointed(self, training: Training) -> bool:
        if time.monotonic() - self.saved_at < self.job.checkpoint_seconds:
            return False
        self._save(self.folder / CHECKPOINT, training)
        self.saved_at = time.monotonic()
        return True

    def _save(self, path: Path, training: Training) -> None:
        """Weights and optimizer state, in one rename: the same training gives the same bytes."""
        about = {
            "phase": training.phase,
            "epoch": training.epoch,
            "metrics": self.metrics,
        }
        partial = path.with_suffix(".partial")
        tensors = {**training.tensors(), ANSWERS: torch.from_numpy(self.answers)}
        save_file(tensors, partial, metadata={"tailrace": json.dumps(about, sort_keys=True)})
        partial.replace(path)

    def _restored(self) -> Training | None:
        """The training in the folder's checkpoint, or None. One that cannot be read is as good as none."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {}).get("tailrace", "{}"))
            tensors = load_tensors(path, device=str(self.device))
        except SafetensorError:
            return None
        if "phase" not in about:
            return None
        phase = about["phase"]
        count = len(self.labels) - (self.job.held_out if phase == 0 else 0)
        training = self._fresh(phase, count)
        training.load(tensors, about["epoch"])
        self.metrics = about["metrics"]
        self.answers = tensors[ANSWERS].cpu().numpy() if ANSWERS in tensors else self.answers
        return training


def device_of(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Where to train: a GPU where there is one, unless told otherwise."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def _write(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(path)
