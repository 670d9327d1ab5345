"""What share of candidates is promoted, and on how many examples: simulated rollouts under the real rules.

    uv run python -m tests.benchmarks.rollouts --times 1000

Candidate and champion answer the same examples and disagree about being right on a share of them. Monitoring's comparison
looks after every 20 examples, and the registry's rules move the candidate through shadow and canary, with the spec's
default counts and without gates; `--max-examples` sets after how many of a stage an undecided one is rejected.

Beside it stand two tests whose size is fixed beforehand, both one-sided at 5 % with a power of 90 %: on the same pairs
(Connor 1987, "Sample size for testing differences in proportions for the paired-sample design", Biometrics 43, equation
3.3), and on two separate groups as an A/B test has them (the champion right on 80 %; examples of each group). They may be
looked at once.
"""

from __future__ import annotations

import argparse
import math
import statistics
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from tailrace_contracts.spec import ModelSpec
from tailrace_monitoring.domain.comparison import Comparison
from tailrace_registry.domain.model import Model
from tailrace_registry.domain.rollout import compare, version_of
from tailrace_registry.testing import a_candidate, a_spec
from tailrace_statistics.sequential import PairedComparison

LOOK = 20
NOW = datetime(2026, 1, 1, tzinfo=UTC)
Z_ERROR, Z_POWER = statistics.NormalDist().inv_cdf(0.95), statistics.NormalDist().inv_cdf(0.9)
CHAMPION = 0.8


class Ended(NamedTuple):
    """How a rollout ended."""

    promoted: bool
    examples: int


def rollout(random: np.random.Generator, gain: float, disagreement: float, spec: ModelSpec) -> Ended:
    """One candidate, from its first example in shadow to its promotion or rejection."""
    model = Model(
        "rain",
        spec,
        1,
        {
            number: version_of(a_candidate(f"run-{number}"), number).model_copy(update={"stage": stage})
            for number, stage in ((1, "champion"), (2, "shadow"))
        },
    )
    comparison = Comparison.start(1, 2, "shadow", spec.rollout.error_rate)
    better, worse = (disagreement + gain) / 2, (disagreement - gain) / 2
    looks = 0
    while model.stage(2) in {"shadow", "canary"}:
        if model.stage(2) == "canary":
            comparison.enter("canary")
        won, lost, _ = random.multinomial(LOOK, [better, worse, 1 - better - worse])
        test = PairedComparison.load(comparison.test)
        test.update(np.repeat([1.0, -1.0, 0.0], [won, lost, LOOK - won - lost]))
        comparison.test, comparison.stage_examples = test.dump(), comparison.stage_examples + LOOK
        looks += 1
        if comparison.is_urgent(spec.rollout) or comparison.stage_examples >= spec.rollout.max_examples:
            model = compare(model, comparison.publish(f"e-{looks}", spec, NOW)).model
    return Ended(model.champion == 2, looks * LOOK)


def paired_size(gain: float, disagreement: float) -> int:
    """Examples of a test on pairs that is looked at once."""
    spread = Z_ERROR * math.sqrt(disagreement) + Z_POWER * math.sqrt(disagreement - gain * gain)
    return math.ceil((spread / gain) ** 2)


def separate_size(gain: float) -> int:
    """Examples of each group of a test on two groups that is looked at once."""
    variance = CHAMPION * (1 - CHAMPION) + (CHAMPION + gain) * (1 - CHAMPION - gain)
    return math.ceil((Z_ERROR + Z_POWER) ** 2 * variance / gain**2)


def main() -> None:
    """Simulate and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=1_000)
    parser.add_argument("--max-examples", type=int, default=10_000, help="of one stage")
    parser.add_argument("--disagreement", type=float, action="append")
    asked = parser.parse_args()
    counts = {"shadow_min_examples": 100, "canary_min_examples": 100, "max_examples": asked.max_examples}
    spec = a_spec(rollout={**counts, "standby_examples": 0})
    print("| disagreement | candidate | promoted | median examples of those | a fixed pair test | each of two groups |")
    print("|---|---|---|---|---|---|")
    for disagreement in asked.disagreement or [0.05, 0.1, 0.15]:
        for gain in (0.0, 0.01, 0.02):
            random = np.random.default_rng(int(1000 * disagreement) + int(100 * gain))
            ended = [rollout(random, gain, disagreement, spec) for _ in range(asked.times)]
            promoted = [each.examples for each in ended if each.promoted]
            median = f"{statistics.median(promoted):,.0f}" if promoted else "-"
            sizes = f"{paired_size(gain, disagreement):,} | {separate_size(gain):,}" if gain else "- | -"
            name = f"{100 * gain:.0f} points better" if gain else "equal"
            share = len(promoted) / len(ended)
            print(f"| {disagreement:.0%} | {name} | {share:.1%} | {median} | {sizes} |", flush=True)


if __name__ == "__main__":
    main()
