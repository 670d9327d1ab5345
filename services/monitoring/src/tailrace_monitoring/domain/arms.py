"""Who answered an example, and who was right.

An example carries the outputs of all arms. A version is known by its number; a model of the producers' own (arm
`external`) has none, and is written as version None. A continual version counts at whatever revision answered.
"""

from __future__ import annotations

from tailrace_contracts.events import ArmOutput, ExampleLabelled
from tailrace_contracts.spec import Label, NumericalLabel


def answers(example: ExampleLabelled) -> dict[int | None, ArmOutput]:
    """The outputs by version; the served one wins where a version stands twice."""
    outputs = [*example.shadows, *((example.served,) if example.served else ())]
    return {output.version: output for output in outputs if output.version or output.arm == "external"}


def champions_answer(example: ExampleLabelled, champion: int | None) -> ArmOutput | None:
    """What the champion said, whichever arm it was in; where there is none, what the producers' own model said."""
    found = answers(example).get(champion)
    if champion is None and found is not None and found.arm != "external":
        return None
    return found


def loss(output: ArmOutput, given: float, label: Label) -> float:
    """0 right, 1 wrong; of a regression the error over the label's scale, cut at 1."""
    if isinstance(label, NumericalLabel):
        return label.loss(output.prediction, given)
    return float(output.prediction != given)


def arm_title(arm: str, version: int | None) -> str:
    """An arm as alerts name it: `version 3` or `external`."""
    return arm if version is None else f"version {version}"
