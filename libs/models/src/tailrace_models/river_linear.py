"""The weights of a linear learner: what a river model adds up, and what its explanations are made of."""

from __future__ import annotations

from typing import NamedTuple

from tailrace_models.encoding import Row
from tailrace_models.shapley import Floats


class Linear(NamedTuple):
    """The weights of a linear learner: those of scaled numbers, of their products (halved off the diagonal), of words."""

    intercept: float
    numerical: tuple[str, ...]
    weights: Floats
    products: Floats
    words: dict[str, dict[str, float]]

    def word(self, name: str, features: Row) -> float:
        """What the word of this feature adds; a missing or unseen one adds nothing."""
        return self.words[name].get(features.get(name), 0.0)  # type: ignore[arg-type]  # other types are unseen values
