"""Is the candidate better than the champion? An answer that may be looked at after every example.

Each labelled example gives one difference: the champion's loss less the candidate's, in [-1, 1], positive where the
candidate did better. Testing a mean over and over with a fixed-size test finds a difference sooner or later where
there is none. This test bets instead (Waudby-Smith and Ramdas 2023, "Estimating means of bounded random variables by
betting", JRSS-B; Ville 1939): against the claim "the mean is at most m" a gambler stakes the share λ of a capital that
starts at 1, and after each difference x holds 1 + λ (x - m) times as much (their capital process). Were the claim true,
the capital could not be expected to grow, and the chance that it *ever* reaches 1 / error_rate is at most error_rate (Ville's inequality).
So whenever it stands there the claim may be dismissed, however often we looked.

We spread the first capital over a fixed row of stakes (their "diversified Kelly betting") rather than
guess one: no stake depends on the data, so the capital depends on the differences and not on their order or batches.
Of 0/1 losses only the examples count on which exactly one of the two is wrong: at m = 0 a tie changes nothing. That is
what makes the test strong for two models that mostly agree. The state is three numbers: examples, and the sums of the
positive and the negative parts. A difference between -1, 0 and 1 is taken as shares of its two neighbours; as the
logarithm is concave this understates the capital, so the guarantee holds and only some power is lost.

All m whose claims cannot be dismissed form the confidence sequence: `lower` to `upper`, each wrong with a chance of at
most error_rate over all time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Verdict = Literal["better", "worse", "undecided"]

STAKES: Mapping[float, float] = {0.01: 0.04, 0.03: 0.08, 0.1: 0.28, 0.25: 0.3, 0.6: 0.3}
"""Stakes, and the shares of the first capital that they begin with.

The best stake for a mean difference d with disagreement q is about d / q: most lies where candidates differ by two to
ten points and disagree on a tenth to a fifth; the two small stakes let the interval go on narrowing for ever.
"""

_HALVINGS = 30


class Comparison(NamedTuple):
    """What is known after so many examples. `mean` lies in [`lower`, `upper`]; both are -1 and 1 at first."""

    examples: int
    mean: float
    lower: float
    upper: float
    verdict: Verdict


class PairedComparison:
    """The test's state. `error_rate` is the chance that an equal candidate is ever `better`, and so for `worse`."""

    def __init__(self, error_rate: float = 0.05) -> None:
        if not 0 < error_rate < 1:
            raise ValueError(f"error_rate {error_rate} must lie between 0 and 1")
        self.error_rate = error_rate
        self._examples = 0
        self._won = 0.0
        self._lost = 0.0

    def update(self, differences: Iterable[float] | npt.NDArray[np.float64]) -> None:
        """Add champion's losses less candidate's, each in [-1, 1]. Raises ValueError for any other number."""
        batch = np.asarray(differences if isinstance(differences, np.ndarray) else list(differences), dtype=np.float64)
        if not (np.abs(batch) <= 1).all():
            raise ValueError("a difference of losses lies outside [-1, 1]; scale the losses to [0, 1] first")
        self._examples += len(batch)
        self._won += float(batch[batch > 0].sum())
        self._lost += float(-batch[batch < 0].sum())

    def result(self) -> Comparison:
        """The confidence sequence and the verdict at this moment."""
        if not self._examples:
            return Comparison(0, 0.0, -1.0, 1.0, "undecided")
        mean = (self._won - self._lost) / self._examples
        lower = _lower(self._examples, self._won, self._lost, self.error_rate)
        upper = -_lower(self._examples, self._lost, self._won, self.error_rate)
        return Comparison(self._examples, mean, lower, upper, self._verdict())

    def _verdict(self) -> Verdict:
        needed = -math.log(self.error_rate)
        if _log_capital(0.0, self._examples, self._won, self._lost) >= needed:
            return "better"
        if _log_capital(0.0, self._examples, self._lost, self._won) >= needed:
            return "worse"
        return "undecided"

    def dump(self) -> dict[str, Any]:
        """The state as JSON."""
        return {
            "error_rate": self.error_rate,
            "examples": self._examples,
            "won": self._won,
            "lost": self._lost,
        }

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> PairedComparison:
        """The test in a state of `dump`."""
        comparison = cls(state["error_rate"])
        comparison._examples = state["examples"]
        comparison._won = state["won"]
        comparison._lost = state["lost"]
        return comparison


def _log_capital(m: float, examples: int, won: float, lost: float) -> float:
    """The logarithm of the capital against "the mean is at most m".

    A stake that one loss could take whole (`stake * (1 + m) >= 1`) is not laid: its part of the capital counts as 0.
    """
    tied = examples - won - lost
    grown = [
        math.log(share)
        + won * math.log1p(stake * (1 - m))
        + tied * math.log1p(-stake * m)
        + lost * math.log1p(-stake * (1 + m))
        for stake, share in STAKES.items()
        if stake * (1 + m) < 1
    ]
    largest = max(grown)
    return largest + math.log(sum(math.exp(each - largest) for each in grown))


def _lower(examples: int, won: float, lost: float, error_rate: float) -> float:
    """The largest m whose claim is dismissed, by bisection: the capital falls as m grows. -1 where there is none."""
    needed = -math.log(error_rate)
    low, high = -1.0, (won - lost) / examples
    if _log_capital(low, examples, won, lost) < needed:
        return low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _log_capital(middle, examples, won, lost) >= needed:
            low = middle
        else:
            high = middle
    return low
