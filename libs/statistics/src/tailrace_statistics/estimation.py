"""Performance before the labels come: the confusion that calibrated probabilities lead one to expect.

Where a model says 0.8 and is calibrated, eight of ten such answers are right; so the share of right answers can be told
from the probabilities alone (Guo et al. 2021, "Online performance estimation with unlabeled data"; NannyML publishes
the same idea as CBPE). A model's own probabilities are seldom calibrated, so a curve is learned on labelled cohorts.

Everything is counted in `BINS` bins of probability, equally wide on the arcsine scale, on which a share has the same
standard error everywhere (Anscombe 1948): fine near 0 and 1, at most 2.5 points wide in the middle. Counts in bins add,
a corrected label moves from one cell to another, and what is labelled can be taken away from what was served: the rest
alone is estimated, so that with the last label the estimate *is* the realised performance.

- *Curve*: the share of positives by bin, made monotone by pooling adjacent violators (Ayer et al. 1955). The model's
  own probability counts as `PRIOR` examples in each bin: where no label has ever come, it is all there is.
- *Interval*: quantiles of `DRAWS` draws from a fixed seed. Drawn are the curve (beta), the labels (binomial, by its
  normal limit), and a shift of the log-odds by predicted class, common to a cohort: how much that shifts from cohort
  to cohort is measured on the labelled ones (method of moments, as DerSimonian and Laird 1986), and shrunk towards
  `PRIOR_SPREAD` while there are few. It is an interval for the *realised* figure of one cohort.
- *Sketches*: counts by bin come from KLL sketches. A sum of a curve of total variation v over n served values is then
  within n v `RANK_ERROR` of the exact one with 99 % confidence; this, too, is in the shift.

The assumption: P(label | probability) is what it was in the labelled cohorts. Inputs may move as they like (covariate
shift); when the concept moves the estimate is wrong, and only labels show it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tailrace_contracts.events import ColumnSummary, NumericalSummary
from tailrace_statistics import sketches

BINS = 64
PRIOR = 1.0
PRIOR_SPREAD = 0.1
"""Standard deviation of a cohort's shift in log-odds that is assumed before it is known: 2.5 points at one half."""
PRIOR_COHORTS = 2
DRAWS = 400

Array = npt.NDArray[np.float64]

EDGES = np.sin(np.arange(1, BINS) * math.pi / (2 * BINS)).astype(np.float64) ** 2
_MIDDLES = np.sin((np.arange(BINS) + 0.5) * math.pi / (2 * BINS)) ** 2
_EDGES32 = EDGES.astype(np.float32)
_Z99 = 2.576


def bin_of(probability: float) -> int:
    """The bin of one probability, in the precision of the sketches."""
    return int(np.searchsorted(_EDGES32, np.float32(probability), side="left"))


def served_bins(summary: ColumnSummary | None) -> Array:
    """How many values of a column of probabilities lie in each bin, shape (BINS,). Raises SketchInvalid."""
    if not isinstance(summary, NumericalSummary) or not summary.count:
        return np.zeros(BINS)
    sketch = sketches.from_text(summary.quantiles)
    shares = np.diff(np.asarray(sketch.get_cdf(_EDGES32, inclusive=True)), prepend=0.0)
    counts: Array = shares * summary.count
    return counts


def unlabelled(served: Array, known: Array) -> Array:
    """What was served, shape (2, BINS), less what is `known`, shape (2, 2, BINS): as many as are missing, by class.

    A sketch's counts are not exact, so a bin may have more labels than it had values: it is empty then, and the others
    of the class make up for it.
    """
    labelled = known.sum(axis=1)
    missing = np.maximum(served.sum(axis=1) - labelled.sum(axis=1), 0.0)
    rest = np.maximum(served - labelled, 0.0)
    total = rest.sum(axis=1)
    scale = np.divide(missing, total, out=np.zeros(2), where=total > 0)
    left: Array = rest * scale[:, None]
    return left


class Calibration(NamedTuple):
    """What a probability is worth.

    `weight`: examples behind the curve at each bin. `spread`: covariance of a cohort's shift in log-odds among answers
    predicted negative and predicted positive, row by row.
    """

    curve: list[float]
    weight: list[float]
    spread: list[float]
    examples: int
    cohorts: int


def calibrate(cohorts: Sequence[Array]) -> Calibration:
    """The calibration that labelled cohorts show. Each is counts by predicted class, label and bin, (2, 2, BINS)."""
    counts = sum(cohorts, np.zeros((2, 2, BINS))).sum(axis=0)
    total = counts.sum(axis=0) + PRIOR
    curve, weight = _monotone((counts[1] + PRIOR * _MIDDLES) / total, total)
    spread = _spread(cohorts, curve)
    return Calibration(
        curve=[round(float(each), 6) for each in curve],
        weight=[round(float(each), 3) for each in weight],
        spread=[round(float(each), 8) for each in spread.ravel()],
        examples=int(counts.sum()),
        cohorts=len(cohorts),
    )


def _monotone(shares: Array, weights: Array) -> tuple[Array, Array]:
    """The closest curve that never falls, and the weight behind each of its points."""
    blocks: list[tuple[float, float, int]] = []
    for share, weight in zip(shares, weights, strict=True):
        here, behind, size = float(share), float(weight), 1
        while blocks and blocks[-1][0] >= here:
            before, more, longer = blocks.pop()
            here = (here * behind + before * more) / (behind + more)
            behind, size = behind + more, size + longer
        blocks.append((here, behind, size))
    sizes = [size for _, _, size in blocks]
    return np.repeat([share for share, _, _ in blocks], sizes), np.repeat([weight for _, weight, _ in blocks], sizes)


def _spread(cohorts: Sequence[Array], curve: Array) -> Array:
    """How the log-odds of whole cohorts lie about the curve: the covariance, by predicted class, beyond chance."""
    gathered: Array = np.eye(2) * PRIOR_SPREAD**2 * PRIOR_COHORTS
    judged = 0
    widening = len(cohorts) / (len(cohorts) - 1) if len(cohorts) > 1 else 0.0  # a cohort pulls the curve to itself
    for each in cohorts:
        answers = each.sum(axis=1)
        information = (answers * curve * (1 - curve)).sum(axis=1)
        if not widening or information.min() < 5:
            continue
        shift = (each[:, 1].sum(axis=1) - (answers * curve).sum(axis=1)) / information * widening
        gathered += np.outer(shift, shift) - np.diag(1 / information)
        judged += 1
    values, vectors = np.linalg.eigh(gathered / (PRIOR_COHORTS + judged))
    definite: Array = vectors @ np.diag(np.maximum(values, 1e-6)) @ vectors.T
    return definite


class Estimated(NamedTuple):
    """One figure: what it most likely is, and between what it lies with the confidence asked for."""

    value: float
    lower: float
    upper: float


def performance(known: Array, rest: Array | None = None) -> dict[str, float]:
    """Accuracy, precision, recall, ROC AUC and the two rates, of labels known (2, 2, BINS) and expected (the same shape).

    A figure whose denominator is 0 is left out. Ties within a bin count half to the AUC, which is therefore that of
    probabilities rounded to their bins.
    """
    cells = known if rest is None else known + rest
    return {name: float(value[0]) for name, value in _figures(cells[None]).items() if np.isfinite(value[0])}


def _figures(cells: Array) -> dict[str, Array]:
    """The figures of many tables at once, shape (draws, 2, 2, BINS); NaN for a denominator of 0."""
    tn, fn, fp, tp = (cells[:, selected, label].sum(axis=-1) for selected in (0, 1) for label in (0, 1))
    negatives, positives = cells[:, :, 0].sum(axis=1), cells[:, :, 1].sum(axis=1)
    below = np.cumsum(negatives, axis=-1) - negatives / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = tn + fn + fp + tp
        return {
            "accuracy": (tp + tn) / whole,
            "precision": tp / (tp + fp),
            "recall": tp / (tp + fn),
            "roc_auc": (positives * below).sum(axis=-1) / (positives.sum(axis=-1) * negatives.sum(axis=-1)),
            "selection_rate": (tp + fp) / whole,
            "label_rate": (tp + fn) / whole,
        }


def estimate(
    known: Array, rest: Array, calibration: Calibration, *, confidence: float = 0.95, seed: int = 0
) -> dict[str, Estimated]:
    """The figures of a cohort of which `known`, shape (2, 2, BINS), is labelled and `rest`, shape (2, BINS), is not."""
    curve = np.asarray(calibration.curve)
    expected = performance(known, np.stack([rest * (1 - curve), rest * curve], axis=1))
    drawn = _figures(known + _draws(rest, calibration, seed))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    found = {}
    for name, value in expected.items():
        draws = drawn[name][np.isfinite(drawn[name])]
        lower, upper = np.quantile(draws, tails) if len(draws) else (value, value)
        found[name] = Estimated(value, min(float(lower), value), max(float(upper), value))
    return found


def _draws(rest: Array, calibration: Calibration, seed: int) -> Array:
    """Tables of labels that may come for `rest`, shape (DRAWS, 2, 2, BINS)."""
    chance = np.random.default_rng(seed)
    curve, weight = np.asarray(calibration.curve), np.asarray(calibration.weight)
    blocks, place = np.unique(curve, return_inverse=True)
    first = np.searchsorted(curve, blocks)
    behind = weight[first]
    shares = chance.beta(blocks * behind + 1e-3, (1 - blocks) * behind + 1e-3, (DRAWS, len(blocks)))[:, place]
    odds = np.log(shares.clip(1e-9, 1 - 1e-9)) - np.log1p(-shares.clip(1e-9, 1 - 1e-9))
    covariance = np.asarray(calibration.spread).reshape(2, 2) + np.diag(_sketching(rest, curve) ** 2)
    shifts = chance.multivariate_normal(np.zeros(2), covariance, DRAWS, method="eigh")
    moved = 1 / (1 + np.exp(-(odds[:, None, :] + shifts[:, :, None])))
    noise = np.sqrt(rest * moved * (1 - moved)) * chance.standard_normal(moved.shape)
    positives = (rest * moved + noise).clip(0, rest)
    return np.stack([rest - positives, positives], axis=2)


def _sketching(rest: Array, curve: Array) -> Array:
    """The standard error of the sketches, as a shift of the log-odds of each predicted class."""
    information = (rest * curve * (1 - curve)).sum(axis=1)
    count = rest.sum(axis=1)
    variation = np.array([np.ptp(curve[row > 0]) if (row > 0).any() else 0.0 for row in rest])
    error = count * variation * sketches.RANK_ERROR / _Z99
    exact = count <= sketches.K
    return np.where(exact | (information <= 0), 0.0, error / np.maximum(information, 1e-9))


def too_few_inside(inside: int, cohorts: int, confidence: float) -> bool:
    """Whether so few of the cohorts lay in their interval that chance does so once in a hundred (binomial)."""
    chance = sum(
        math.comb(cohorts, count) * confidence**count * (1 - confidence) ** (cohorts - count)
        for count in range(inside + 1)
    )
    return chance < 0.01


def table(outcomes: Mapping[str, int]) -> Array:
    """Counts under `cell_name` as a table of shape (2, 2, BINS)."""
    cells = np.zeros((2, 2, BINS))
    for name, count in outcomes.items():
        selected, positive, place = name.split("|")
        cells[int(selected), int(positive), int(place)] = count
    return cells


def cell_name(*, selected: bool, positive: bool, probability: float) -> str:
    """The name of the cell that an answer and its label are counted in."""
    return f"{int(selected)}|{int(positive)}|{bin_of(probability)}"
