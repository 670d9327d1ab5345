"""Shapley values by sampling: what each feature adds to a model's output, against rows of a reference.

A walk starts at a row of the reference and takes over the explained row's features one by one, in a random order; a
feature's contribution is by how much the output moved when it was taken over. Averaged over orders and rows that is
the Shapley value of the game whose coalitions are worth the mean output over the reference with the coalition's
features replaced (Štrumbelj and Kononenko 2014, "Explaining prediction models and individual predictions with feature
contributions"). Every order is walked backwards too, from the same row, which lowers the
variance and makes interactions of two features exact (antithetic sampling: Mitchell, Cooper, Frank and Holmes 2022,
"Sampling permutations for Shapley value estimation").

Because a walk telescopes, its contributions add up to the output less that of the row where it started, and because all
rows start equally many walks, all contributions add up to the output less the mean over the reference, whatever the
number of walks. Pure: this module says which mixed rows to ask the model for, and what follows from the answers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Walks(NamedTuple):
    """The mixed rows of one explanation.

    Mixed row i has the explained row's value of feature j where `chosen[i, j]`, and that of row `places[i]` of the
    reference elsewhere. The first is the explained row, then come the reference's rows, then the walks' inner steps.
    `orders` [walks, features]: the features as each walk takes them over; every second is the reverse of the one before.
    """

    chosen: Mask
    places: Integers
    orders: Integers
    rows: int


class Sampled(NamedTuple):
    """Estimates [features] and their standard errors; `base_value` plus all contributions is `output`."""

    base_value: float
    output: float
    contributions: Floats
    standard_errors: Floats


def spread(rows: int, permutations: int) -> list[int]:
    """Which of a reference's rows so many permutations use: all, or as many as have a pair of walks each, evenly spread.

    >>> spread(5, 6)
    [0, 1, 3]
    """
    wanted = min(rows, max(permutations // 2, 1))
    return [index * rows // wanted for index in range(wanted)]


def walked(rows: int, permutations: int) -> int:
    """How many walks these permutations come to: a pair for each row, as often as they reach.

    >>> walked(10, 32), walked(100, 32)
    (20, 32)
    """
    used = len(spread(rows, permutations))
    return 2 * used * max(permutations // (2 * used), 1)


def mixed_rows(features: int, rows: int, permutations: int) -> int:
    """How many rows the model is asked for one explanation."""
    return 1 + len(spread(rows, permutations)) + walked(rows, permutations) * max(features - 1, 0)


def walks(features: int, rows: int, permutations: int, seed: int) -> Walks:
    """Walks from each of `rows` rows of the reference. The same arguments give the same walks, for ever."""
    pairs = max(permutations // (2 * rows), 1) * rows
    chance = np.random.RandomState(
        [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF]
    )  # frozen (NEP 19): an explanation can be made again years later
    forward = np.argsort(chance.random_sample((pairs, features)), axis=1, kind="stable")
    orders = np.stack([forward, forward[:, ::-1]], axis=1).reshape(2 * pairs, features)
    taken_over = np.argsort(orders, axis=1, kind="stable")  # at which step each feature is
    steps = np.arange(1, features)
    inner = (taken_over[:, None, :] < steps[None, :, None]).reshape(-1, features)
    starts = np.repeat(np.arange(pairs) % rows, 2)
    chosen = np.concatenate([np.ones((1, features), bool), np.zeros((rows, features), bool), inner])
    places = np.concatenate([np.zeros(1, np.int64), np.arange(rows), np.repeat(starts, max(features - 1, 0))])
    return Walks(chosen, places, orders, rows)


def estimated(asked: Walks, outputs: Floats) -> Sampled:
    """The estimates, from the model's outputs for the mixed rows.

    The standard errors are those of the pairs' mean. They count the spread between the reference's rows in, although
    every row has its pairs, so they are rather too large.
    """
    count, features = asked.orders.shape
    output, rows = float(outputs[0]), outputs[1 : 1 + asked.rows]
    path = np.empty((count, features + 1))
    path[:, 0] = rows[np.repeat(np.arange(count // 2) % asked.rows, 2)]
    path[:, 1:-1] = outputs[1 + asked.rows :].reshape(count, features - 1)
    path[:, -1] = output
    moved = np.empty((count, features))
    np.put_along_axis(moved, asked.orders, np.diff(path, axis=1), axis=1)
    pairs = moved.reshape(count // 2, 2, features).mean(axis=1)
    deviations = pairs.std(axis=0, ddof=1) if len(pairs) > 1 else np.full(features, np.nan)
    return Sampled(float(rows.mean()), output, pairs.mean(axis=0), deviations / math.sqrt(len(pairs)))
