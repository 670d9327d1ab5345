"""What the trainer process is asked, and what it says while it works: the words between the service and torch.

A job is a folder: `job.json` (this module's `Job`), `examples.safetensors` (`features` float32 [n, columns],
`labels` float32 [n], 1 for the positive class, or float64 [n] of a regression, oldest first), and, where a training was interrupted, `checkpoint.safetensors`. The trainer
answers in lines of JSON (`Said`) and leaves `model.onnx` and `model.safetensors` in the folder. Among the latter's tensors
are the answers on the held-out examples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tailrace_contracts.spec import BatchLearner, NumericalLabel

JOB = "job.json"
EXAMPLES = "examples.safetensors"
CHECKPOINT = "checkpoint.safetensors"
ONNX_FILE = "model.onnx"
WEIGHTS_FILE = "model.safetensors"
ANSWERS = "evaluation.answers"
"""Probabilities, or a regression's numbers, float32 [held_out]: what was answered before those examples were learned."""


class Job(BaseModel):
    """One training, whole."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    learner: BatchLearner
    numerical: tuple[bool, ...] = Field(description="for each column: a number to be scaled, or a one-hot column")
    label: NumericalLabel | None = Field(default=None, description="of a regression; None where a class is learned")
    held_out: int = Field(ge=1, description="the newest examples, kept for evaluation")
    threads: int = Field(default=1, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_seconds: float = Field(default=2.0, ge=0)


class Said(BaseModel):
    """One line of the trainer. `finished` and `failed` end the job."""

    model_config = ConfigDict(frozen=True)

    stage: Literal["training", "evaluating", "exporting", "finished", "failed"]
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    checkpoint: bool = Field(default=False, description="a newer checkpoint stands in the folder")
    metrics: dict[str, float] = {}
    message: str = ""


Say = Callable[[Said], None]
"""How a training says how far it is."""
