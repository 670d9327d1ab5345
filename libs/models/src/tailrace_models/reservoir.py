"""Rows that a learner has seen: a bounded sample, so that its answers can be explained against them later.

The first hundred examples are kept. From then on example number n is kept with the probability capacity / min(n, memory)
in the place of a random other one: a uniform sample of the first examples (Vitter 1985, algorithm R), and of a longer
stream one in which older examples fade with a half-life of about 0.7 memories (Aggarwal 2006, "On biased reservoir
sampling in the presence of stream evolution"), because what is usual is what was usual lately. Which example is kept
where is decided by a hash of its number: the same examples give the same sample, after a restart too.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from tailrace_contracts.events import FeatureValue
from tailrace_contracts.spec import Feature, NumericalFeature
from tailrace_models.encoding import Row, number

CAPACITY = 100
MEMORY = 2_000

Packed = npt.NDArray[Any]
_ABSENT = -1


class Reservoir:
    """Numbers as 32-bit floats, NaN where missing; words as places among the feature's categories."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._numerical = [each.name for each in features if isinstance(each, NumericalFeature)]
        self._categorical = [
            (each.name, each.categories) for each in features if not isinstance(each, NumericalFeature)
        ]
        self._places = [{word: place for place, word in enumerate(words)} for _, words in self._categorical]
        self._numbers: Packed = np.empty((0, len(self._numerical)), np.dtype("<f4"))
        self._words: Packed = np.empty((0, len(self._categorical)), np.dtype("<i2"))

    def __len__(self) -> int:
        """Rows kept."""
        return len(self._numbers)

    def learn(self, count: int, features: Row) -> None:
        """See example number `count`, from 1."""
        place = _drawn(count) if len(self) == CAPACITY else len(self)
        if place >= CAPACITY:
            return
        with np.errstate(over="ignore"):
            numbers = np.array([number(features.get(name)) for name in self._numerical], np.dtype("<f4"))
        words = [
            places.get(str(features.get(name)), _ABSENT)
            for (name, _), places in zip(self._categorical, self._places, strict=True)
        ]
        if place == len(self):
            self._numbers = np.vstack([self._numbers, numbers[None]])
            self._words = np.vstack([self._words, np.array(words, self._words.dtype)[None]])
        else:
            self._numbers[place], self._words[place] = numbers, words

    def rows(self) -> list[dict[str, FeatureValue]]:
        """The rows, in the order of their places."""
        return [
            dict(self._row(numbers, places))
            for numbers, places in zip(self._numbers.tolist(), self._words.tolist(), strict=True)
        ]

    def _row(self, numbers: Sequence[float], places: Sequence[int]) -> Iterator[tuple[str, FeatureValue]]:
        for name, value in zip(self._numerical, numbers, strict=True):
            yield name, None if math.isnan(value) else value
        for (name, words), place in zip(self._categorical, places, strict=True):
            yield name, None if place == _ABSENT else words[place]

    def to_json(self) -> dict[str, Any]:
        """The rows as they are written into an envelope's header."""
        return {
            "rows": len(self),
            "numbers": base64.b64encode(self._numbers.tobytes()).decode("ascii"),
            "words": base64.b64encode(self._words.tobytes()).decode("ascii"),
        }

    @classmethod
    def from_json(cls, features: Sequence[Feature], written: Mapping[str, Any] | None) -> Reservoir:
        """The rows out of a header; none where it is of a time before there were any."""
        made = cls(features)
        if written is not None:
            made._numbers = _unpacked(written["numbers"], written["rows"], made._numbers)
            made._words = _unpacked(written["words"], written["rows"], made._words)
        return made


def _unpacked(data: str, rows: int, empty: Packed) -> Packed:
    found = np.frombuffer(base64.b64decode(data), empty.dtype)
    return found.reshape(rows, empty.shape[1]).copy()


def _drawn(count: int) -> int:
    """A place for example number `count`; one beyond the capacity says that it is not kept."""
    digest = blake2b(count.to_bytes(8, "big"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % min(count, MEMORY)
