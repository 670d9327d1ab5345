"""A network for tables: scaling and imputation inside, then layers of ReLU, then one logit, or one number.

A missing number becomes its column's mean; every number is scaled by mean and deviation and cut at ten deviations, so
that one broken sensor cannot carry an answer away. One-hot columns pass as they are. Mean and deviation come from
values cut at the 0.1 % and 99.9 % quantiles, so that one broken reading does not flatten the rest.

A regression learns its label scaled in the same way, by Huber's loss (Huber 1964): squared near the truth, absolute
beyond one deviation, so that a few wild labels do not rule. The scale is inside the network: it answers in the label's
own unit.

Training is deterministic: every epoch seeds the generator with (seed, phase, epoch), and the learning rate is a
function of the step. So a checkpoint at the end of an epoch needs weights and optimizer state only, and a training
that was killed goes on to the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tailrace_contracts.spec import BatchLearner
from tailrace_models.encoding import LARGEST

CUT = 10.0
"""Scaled numbers are cut at this many deviations."""

_WARM_UP = 0.3
_START_DIVISOR = 25.0
_END_DIVISOR = 1e4

Matrix = npt.NDArray[np.float32]
Labels = npt.NDArray[np.float32] | npt.NDArray[np.float64]


class Scaling(NamedTuple):
    """Mean and deviation of each column, float32 [columns]."""

    mean: Matrix
    deviation: Matrix


def scaling_of(features: Matrix, numerical: npt.NDArray[np.bool_]) -> Scaling:
    """Robust mean and deviation of the numerical columns; 0 and 1 for the others, and for columns of one value."""
    columns = features.shape[1]
    mean, deviation = np.zeros(columns, np.float32), np.ones(columns, np.float32)
    for column in np.flatnonzero(numerical):
        values = features[:, column].astype(np.float64)
        values = values[np.isfinite(values)]
        if len(values):
            mean[column], deviation[column] = _centre_and_spread(values, tail=0.001)
    return Scaling(mean, deviation)


def target_of(labels: Labels) -> Scaling:
    """Mean and deviation of the labels without their outermost hundredths, both float32 []."""
    mean, deviation = _centre_and_spread(labels.astype(np.float64).clip(-LARGEST, LARGEST), tail=0.01)
    return Scaling(np.array(mean, np.float32), np.array(deviation, np.float32))


def _centre_and_spread(values: npt.NDArray[np.float64], tail: float) -> tuple[float, float]:
    cut = values.clip(*np.quantile(values, [tail, 1 - tail]))
    mean, spread = float(cut.mean()), float(cut.std())
    return mean, spread if spread > 1e-6 * max(1.0, abs(mean)) else 1.0


class Network(nn.Module):
    """Features float32 [rows, columns], NaN where missing, to logits [rows]."""

    mean: torch.Tensor
    deviation: torch.Tensor
    target_mean: torch.Tensor
    target_deviation: torch.Tensor

    def __init__(self, scaling: Scaling, learner: BatchLearner, target: Scaling | None = None) -> None:
        super().__init__()
        self.regression = target is not None
        if target is not None:
            self.register_buffer("target_mean", torch.from_numpy(target.mean))
            self.register_buffer("target_deviation", torch.from_numpy(target.deviation))
        self.register_buffer("mean", torch.from_numpy(scaling.mean))
        self.register_buffer("deviation", torch.from_numpy(scaling.deviation))
        self.linear = nn.ModuleList()
        width = len(scaling.mean)
        for hidden in (*learner.hidden, 1):
            self.linear.append(nn.Linear(width, hidden))
            width = hidden
        self.dropout = nn.Dropout(learner.dropout)

    def scaled(self, features: torch.Tensor) -> torch.Tensor:
        """Features as the layers see them: imputed, scaled, cut."""
        away = (features - self.mean) / self.deviation
        return torch.where(torch.isnan(features), torch.zeros_like(away), away).clamp(-CUT, CUT)

    def logits(self, scaled: torch.Tensor) -> torch.Tensor:
        """The layers. Of a regression, how many deviations the answer is from the label's mean."""
        *hidden, last = self.linear
        for layer in hidden:
            scaled = self.dropout(torch.relu(layer(scaled)))
        return torch.as_tensor(last(scaled)).squeeze(-1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits of the positive class; of a regression, answers in deviations."""
        return self.logits(self.scaled(features))

    def targets(self, labels: Labels) -> torch.Tensor:
        """Labels as they are learned: as they are, or in deviations from their mean, cut."""
        if not self.regression:
            return torch.from_numpy(labels)
        away = (labels - self.target_mean.item()) / self.target_deviation.item()
        return torch.from_numpy(away.clip(-CUT, CUT).astype(np.float32))

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """What training lowers."""
        if self.regression:
            return nn.functional.huber_loss(outputs, targets)
        return nn.functional.binary_cross_entropy_with_logits(outputs, targets)

    @torch.no_grad()
    def answers(self, features: Matrix) -> npt.NDArray[np.float32]:
        """Probabilities of the positive class, or numbers in the label's unit [rows]; leaves the network in evaluation."""
        self.eval()
        device = next(self.parameters()).device
        outputs = self(torch.from_numpy(features).to(device))
        found = outputs * self.target_deviation + self.target_mean if self.regression else torch.sigmoid(outputs)
        return np.asarray(found.cpu().numpy(), dtype=np.float32)


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), for one network.

    torch has the same in `torch.optim`, whose import brings torch's compiler along: 3.5 s and 150 MB in a process
    that is started for a second of work.
    """

    FIRST, SECOND, SMALLEST = 0.9, 0.999, 1e-8

    def __init__(self, parameters: Iterable[nn.Parameter], weight_decay: float) -> None:
        self.parameters = list(parameters)
        self.weight_decay = weight_decay
        self.steps = 0
        self.first = [torch.zeros_like(each) for each in self.parameters]
        self.second = [torch.zeros_like(each) for each in self.parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move the parameters against their gradients, and clear these."""
        self.steps += 1
        bias = 1 - self.FIRST**self.steps
        unbias = math.sqrt(1 - self.SECOND**self.steps)
        for parameter, first, second in zip(self.parameters, self.first, self.second, strict=True):
            if parameter.grad is None:
                continue
            parameter.mul_(1 - rate * self.weight_decay)
            first.lerp_(parameter.grad, 1 - self.FIRST)
            second.mul_(self.SECOND).addcmul_(parameter.grad, parameter.grad, value=1 - self.SECOND)
            parameter.addcdiv_(first, (second.sqrt() / unbias).add_(self.SMALLEST), value=-rate / bias)
            parameter.grad = None


class Training:
    """A network being trained: `epochs` yields after each epoch, and the state can be taken out and put back."""

    def __init__(self, network: Network, learner: BatchLearner, phase: int) -> None:
        self.network = network
        self.learner = learner
        self.phase = phase
        self.epoch = 0
        self.optimizer = AdamW(network.parameters(), learner.weight_decay)

    def epochs(self, features: Matrix, labels: Labels) -> Iterator[float]:
        """Train the epochs that remain; yields each epoch's mean loss, with `epoch` counted up."""
        device = next(self.network.parameters()).device
        inputs = self.network.scaled(torch.from_numpy(features).to(device))
        targets = self.network.targets(labels).to(device)
        while self.epoch < self.learner.epochs:
            loss = self._one_epoch(inputs, targets)
            self.epoch += 1
            yield loss

    def _one_epoch(self, inputs: torch.Tensor, targets: torch.Tensor) -> float:
        torch.manual_seed(self.learner.seed * 1_000_003 + self.phase * 100_003 + self.epoch)
        self.network.train()
        batches = torch.split(torch.randperm(len(inputs)).to(inputs.device), self.learner.batch_size)
        step, steps = self.epoch * len(batches), self.learner.epochs * len(batches)
        total = torch.zeros((), device=inputs.device)
        for number, rows in enumerate(batches):
            rate = learning_rate(self.learner.learning_rate, step + number, steps)
            total += self._step(inputs[rows], targets[rows], rate) * len(rows)
        return float(total) / len(inputs)

    def _step(self, inputs: torch.Tensor, targets: torch.Tensor, rate: float) -> torch.Tensor:
        """One batch; in mixed precision where there is a GPU."""
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=inputs.is_cuda):
            logits = self.network.logits(inputs)
        loss = self.network.loss(logits.float(), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(rate)
        return loss.detach()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights and optimizer state, by name, on the CPU."""
        named = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        named.update({f"optimizer.first.{index}": each for index, each in enumerate(self.optimizer.first)})
        named.update({f"optimizer.second.{index}": each for index, each in enumerate(self.optimizer.second)})
        named["optimizer.steps"] = torch.tensor(self.optimizer.steps)
        return {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}

    def load(self, tensors: dict[str, torch.Tensor], epoch: int) -> None:
        """Become what `tensors` gave after `epoch` epochs."""
        self.network.load_state_dict(
            {name.removeprefix("network."): tensor for name, tensor in tensors.items() if name.startswith("network.")}
        )
        for index in range(len(self.optimizer.parameters)):
            self.optimizer.first[index].copy_(tensors[f"optimizer.first.{index}"])
            self.optimizer.second[index].copy_(tensors[f"optimizer.second.{index}"])
        self.optimizer.steps = int(tensors["optimizer.steps"])
        self.epoch = epoch


def learning_rate(highest: float, step: int, steps: int) -> float:
    """The one-cycle rate (Smith and Topin 2018): a cosine up over the first 30 % of steps, a cosine down to almost 0."""
    peak = max(1.0, _WARM_UP * steps)
    if step < peak:
        return _cosine(highest / _START_DIVISOR, highest, step / peak)
    return _cosine(highest, highest / _START_DIVISOR / _END_DIVISOR, (step - peak) / max(1.0, steps - peak))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
