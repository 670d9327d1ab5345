"""From the records of a log range to the examples that are trained on.

An example may stand in the ranges more than once: published again after a crash, or corrected. One stays for each
prediction id, the newest correction, in the place where the first stood, so that the order is still that of the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tailrace_contracts.events import ExampleLabelled, FeatureValue
from tailrace_contracts.spec import BatchLearner, ClassLabel, ModelSpec


class Example(NamedTuple):
    """What training needs of a labelled example."""

    prediction_id: str
    label_revision: int
    label: float
    features: Mapping[str, FeatureValue]

    @classmethod
    def of(cls, event: ExampleLabelled) -> Example:
        """The example in an event."""
        return cls(event.prediction_id, event.label_revision, event.label, event.features)


class Untrainable(Exception):  # noqa: N818  # named for what is true
    """The request cannot lead to a version. The message is one sentence for the person who asked."""


def distinct(examples: Iterable[Example]) -> list[Example]:
    """One example for each prediction id: its newest label, in the place of the first."""
    newest: dict[str, Example] = {}
    for example in examples:
        known = newest.get(example.prediction_id)
        if known is None or example.label_revision > known.label_revision:
            newest[example.prediction_id] = example
    return list(newest.values())


def held_out(count: int, learner: BatchLearner) -> int:
    """How many of the newest examples are kept for evaluation: the learner's share, at least one."""
    return max(1, round(count * learner.evaluation_share))


def check(examples: list[Example], spec: ModelSpec, learner: BatchLearner, where: str) -> None:
    """Raises Untrainable where there are too few examples, or only one class (or number) to learn from."""
    if len(examples) < learner.min_examples:
        raise Untrainable(
            f"{where} holds {len(examples)} examples of model {spec.model!r}, expected at least "
            f"{learner.min_examples} (learners.batch.min_examples); train when more labels have come"
        )
    rest = examples[: len(examples) - held_out(len(examples), learner)]
    found, label = {example.label for example in rest}, spec.label
    if isinstance(label, ClassLabel) and len({each == label.positive for each in found}) < 2:
        raise Untrainable(
            f"{where} holds only {'positive' if label.positive in found else 'negative'} examples of model "
            f"{spec.model!r} to learn from, expected both classes; train on a longer range"
        )
    if len(found) < 2:
        raise Untrainable(
            f"{where} holds only examples with the label {found.pop()} of model {spec.model!r} to learn from, "
            "expected more than one number; train on a longer range"
        )
