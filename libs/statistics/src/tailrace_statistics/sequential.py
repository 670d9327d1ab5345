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
what makes the test strong for two models that mostly agree. The state is four numbers: examples, and the sums of the
positive parts, the negative parts and the squares.

Differences between -1, 0 and 1 (a regression's bounded errors) need more than sums to be exact, so their capital is
understated, by the better of two bounds; the guarantee holds and only some power is lost. One takes a difference as
shares of its two neighbours, which the concave logarithm understates. The other is that of Fan, Grama and Liu (2015,
"Exponential inequalities for martingales with applications", inequality 4.11; the empirical Bernstein bound of
Waudby-Smith and Ramdas): log(1 + s y) >= s y - (-log(1 - s) - s) y^2 for y >= -1 and s in [0, 1). It sees that small
differences vary little. Of 0/1 losses the first is exact, and it alone is used.

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


class _Sums(NamedTuple):
    """What the differences come to: how many, the sums of their positive and negative parts, and of their squares."""

    examples: int
    won: float
    lost: float
    squares: float

    def mirrored(self) -> _Sums:
        """The same seen from the other side."""
        return _Sums(self.examples, self.lost, self.won, self.squares)


class PairedComparison:
    """The test's state. `error_rate` is the chance that an equal candidate is ever `better`, and so for `worse`."""

    def __init__(self, error_rate: float = 0.05) -> None:
        if not 0 < error_rate < 1:
            raise ValueError(f"error_rate {error_rate} must lie between 0 and 1")
        self.error_rate = error_rate
        self._examples = 0
        self._won = 0.0
        self._lost = 0.0
        self._squares = 0.0

    def update(self, differences: Iterable[float] | npt.NDArray[np.float64]) -> None:
        """Add champion's losses less candidate's, each in [-1, 1]. Raises ValueError for any other number."""
        batch = np.asarray(differences if isinstance(differences, np.ndarray) else list(differences), dtype=np.float64)
        if not (np.abs(batch) <= 1).all():
            raise ValueError("a difference of losses lies outside [-1, 1]; scale the losses to [0, 1] first")
        self._examples += len(batch)
        self._won += float(batch[batch > 0].sum())
        self._lost += float(-batch[batch < 0].sum())
        self._squares += float((batch * batch).sum())

    def result(self) -> Comparison:
        """The confidence sequence and the verdict at this moment."""
        if not self._examples:
            return Comparison(0, 0.0, -1.0, 1.0, "undecided")
        mean = (self._won - self._lost) / self._examples
        lower = _lower(self._sums(), self.error_rate)
        upper = -_lower(self._sums().mirrored(), self.error_rate)
        return Comparison(self._examples, mean, lower, upper, self.verdict())

    def verdict(self) -> Verdict:
        """The verdict alone: it costs a thirtieth of the confidence sequence."""
        needed = -math.log(self.error_rate)
        if _log_capital(0.0, self._sums()) >= needed:
            return "better"
        if _log_capital(0.0, self._sums().mirrored()) >= needed:
            return "worse"
        return "undecided"

    def _sums(self) -> _Sums:
        return _Sums(self._examples, self._won, self._lost, self._squares)

    def dump(self) -> dict[str, Any]:
        """The state as JSON."""
        return {
            "error_rate": self.error_rate,
            "examples": self._examples,
            "won": self._won,
            "lost": self._lost,
            "squares": self._squares,
        }

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> PairedComparison:
        """The test in a state of `dump`."""
        comparison = cls(state["error_rate"])
        comparison._examples = state["examples"]
        comparison._won = state["won"]
        comparison._lost = state["lost"]
        comparison._squares = state.get("squares", state["won"] + state["lost"])
        return comparison


def _log_capital(m: float, sums: _Sums) -> float:
    """The logarithm of the capital against "the mean is at most m".

    A stake that one loss could take whole (`stake * (1 + m) >= 1`) is not laid: its part of the capital counts as 0.
    """
    whole = sums.squares >= sums.won + sums.lost
    grown = [
        math.log(share) + (_grown(stake, m, sums) if whole else max(_grown(stake, m, sums), _bounded(stake, m, sums)))
        for stake, share in STAKES.items()
        if stake * (1 + m) < 1
    ]
    largest = max(grown)
    return largest + math.log(sum(math.exp(each - largest) for each in grown))


def _grown(stake: float, m: float, sums: _Sums) -> float:
    """The logarithm by which one stake's capital has grown; exact where all differences are -1, 0 or 1."""
    tied = sums.examples - sums.won - sums.lost
    return (
        sums.won * math.log1p(stake * (1 - m))
        + tied * math.log1p(-stake * m)
        + sums.lost * math.log1p(-stake * (1 + m))
    )


def _bounded(stake: float, m: float, sums: _Sums) -> float:
    """The same by the bound of Fan, Grama and Liu, with y = (x - m) / (1 + m) and s = stake (1 + m)."""
    distance = 1 + m
    if not distance:
        return -math.inf
    scaled, total = stake * distance, sums.won - sums.lost
    squares = max(sums.squares - 2 * m * total + sums.examples * m * m, 0.0)
    return stake * (total - sums.examples * m) + (math.log1p(-scaled) + scaled) * squares / distance**2


def _lower(sums: _Sums, error_rate: float) -> float:
    """The largest m whose claim is dismissed, by bisection: the capital falls as m grows. -1 where there is none."""
    needed = -math.log(error_rate)
    low, high = -1.0, (sums.won - sums.lost) / sums.examples
    if _log_capital(low, sums) < needed:
        return low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _log_capital(middle, sums) >= needed:
            low = middle
        else:
            high = middle
    return low
