"""Why an answer is what it is, as the event carries it; which live predictions are explained, and from which seed.

The same fields as `Explanation` of `tailrace_contracts.events`, which stays the definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from tailrace_contracts.events import FeatureValue
from tailrace_serving.domain.refusal import Refused, brief

LEAST_PERMUTATIONS, MOST_PERMUTATIONS = 2, 2_000
_SEED_BITS = 53  # a number that every reader of JSON reads exactly


class Explanation(msgspec.Struct, frozen=True):
    """`Explanation` of the contracts."""

    method: str
    scale: str
    base_value: float
    output: float
    contributions: dict[str, float]
    standard_errors: dict[str, float]
    permutations: int
    seed: int
    reference_rows: int
    reference_sha256: str


class ToExplain(NamedTuple):
    """A row to be explained by the model that answered it, and what that may cost.

    `most_rows`: mixed rows that the model is asked, at most. `rest`: how long to let others go on after each step, in
    multiples of the step.
    """

    row: Mapping[str, FeatureValue]
    permutations: int
    seed: int
    most_rows: int
    rest: float = 0.0


def seed_of(model: str, version: str, prediction_id: str) -> int:
    """The seed of an explanation: whoever asks again gets the same one, in any process and any year."""
    return _hashed(f"explanation\0{model}\0{version}\0{prediction_id}") >> (64 - _SEED_BITS)


def drawn(model: str, prediction_id: str, share: float) -> bool:
    """Whether this prediction is in its model's sample; the same everywhere and whenever it is read again.

    >>> [drawn("rain", str(number), 0.5) for number in range(4)], drawn("rain", "0", 0)
    ([True, False, False, False], False)
    """
    return share > 0 and _hashed(f"explained\0{model}\0{prediction_id}") < share * 2**64


def _hashed(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def permutations_of(asked: Any, usual: int, where: str = "") -> int:
    """The permutations that a request asks for, or the usual ones. Raises Refused."""
    if asked is None:
        return usual
    if not isinstance(asked, int) or isinstance(asked, bool) or not LEAST_PERMUTATIONS <= asked <= MOST_PERMUTATIONS:
        raise Refused(
            "malformed",
            f"{where}permutations is {brief(asked)}, expected a whole number from {LEAST_PERMUTATIONS} to {MOST_PERMUTATIONS}",
        )
    return asked


def recorded(asked: Any, where: str = "") -> bool:
    """Whether the answer becomes a prediction event; it does unless the request says otherwise. Raises Refused."""
    if asked is None or isinstance(asked, bool):
        return asked is not False
    raise Refused("malformed", f"{where}record is {brief(asked)}, expected true or false")
