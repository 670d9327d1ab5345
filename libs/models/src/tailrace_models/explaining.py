"""Why a model answered what it did: what each feature added, from the mean over reference rows to the output.

    base_value + the sum of the contributions = output

Where the model's form allows it the contributions are exact (`linear-exact`): on the scale on which the model adds, and
that is log-odds for probabilities. Any other model is asked for mixed rows (`shapley`), and what it answers, a
probability or a value, is explained with a standard error. Both are Shapley values of the same game, so where both can
be had they agree (the tests hold them together).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np

from tailrace_contracts.spec import ClassLabel, Label
from tailrace_models import shapley
from tailrace_models.encoding import Row
from tailrace_models.shapley import Floats, Integers, Mask

Method = Literal["linear-exact", "sampling-shapley"]
Scale = Literal["log-odds", "probability", "value"]

REFERENCE_ROWS = 100
"""Rows of a reference that explanations start from, at most; evenly spread over those that there are."""


class Reference(NamedTuple):
    """The rows that answers are explained against, and their digest."""

    rows: Sequence[Row]
    sha256: str


class Explained(NamedTuple):
    """One answer, explained. Contributions and standard errors by feature; an exact method has no errors."""

    method: Method
    scale: Scale
    base_value: float
    output: float
    contributions: dict[str, float]
    standard_errors: dict[str, float]
    permutations: int
    reference_rows: int
    reference_sha256: str


class Exact(NamedTuple):
    """What adds up to the output on the model's own scale."""

    base_value: float
    contributions: Floats


Exactly = Callable[[Row], Exact]
Mixing = Callable[[Mask, Integers], Floats]


class Explainable(Protocol):
    """What a model offers to those who explain it."""

    names: tuple[str, ...]
    adding_scale: Scale
    """The scale on which the model adds, if it does: `log-odds` or `value`."""
    answering_scale: Scale
    """The scale of its answers: `probability` or `value`."""
    slice_rows: int
    """So many mixed rows are asked at once."""

    def exactly(self, rows: Sequence[Row]) -> Exactly | None:
        """How to explain against these rows exactly; None where the model's form does not allow it."""
        ...

    def mixing(self, row: Row, rows: Sequence[Row]) -> Mixing:
        """How to ask for rows that are mixed of this one and those."""
        ...


class Explainer:
    """Explains one model against one reference. Making it looks at every reference row: in a thread, please."""

    def __init__(self, model: Explainable, reference: Reference) -> None:
        self.reference = thinned(reference)
        self._model = model
        self._exactly = model.exactly(self.reference.rows)

    @property
    def exact(self) -> bool:
        """Whether explanations are exact; then they cost no more than an answer."""
        return self._exactly is not None

    def mixed_rows(self, permutations: int) -> int:
        """How many rows the model is asked for one explanation."""
        if self.exact:
            return 1
        return shapley.mixed_rows(len(self._model.names), len(self.reference.rows), permutations)

    def steps(self, row: Row, permutations: int, seed: int) -> Generator[None, None, Explained]:
        """Explain in steps, none of which keeps others waiting for long."""
        if self._exactly is not None:
            return self._told_exactly(self._exactly(row))
        rows = [self.reference.rows[place] for place in shapley.spread(len(self.reference.rows), permutations)]
        asked = shapley.walks(len(self._model.names), len(rows), permutations, seed)
        mixed, size = self._model.mixing(row, rows), self._model.slice_rows
        outputs = np.empty(len(asked.chosen))
        for start in range(0, len(outputs), size):
            end = start + size
            outputs[start:end] = mixed(asked.chosen[start:end], asked.places[start:end])
            yield
        return self._told_by_sampling(shapley.estimated(asked, outputs), len(asked.orders), len(rows))

    def _told_exactly(self, exact: Exact) -> Explained:
        return Explained(
            method="linear-exact",
            scale=self._model.adding_scale,
            base_value=exact.base_value,
            output=exact.base_value + float(exact.contributions.sum()),
            contributions=self._named(exact.contributions),
            standard_errors={},
            permutations=0,
            reference_rows=len(self.reference.rows),
            reference_sha256=self.reference.sha256,
        )

    def _told_by_sampling(self, found: shapley.Sampled, permutations: int, rows: int) -> Explained:
        known = not np.isnan(found.standard_errors).any()
        return Explained(
            method="sampling-shapley",
            scale=self._model.answering_scale,
            base_value=found.base_value,
            output=found.output,
            contributions=self._named(found.contributions),
            standard_errors=self._named(found.standard_errors) if known else {},
            permutations=permutations,
            reference_rows=rows,
            reference_sha256=self.reference.sha256,
        )

    def _named(self, values: Floats) -> dict[str, float]:
        return dict(zip(self._model.names, values.tolist(), strict=True))


def thinned(reference: Reference) -> Reference:
    """At most `REFERENCE_ROWS` of the rows, evenly spread. The digest stays that of the whole."""
    rows = reference.rows
    if len(rows) <= REFERENCE_ROWS:
        return reference
    return Reference([rows[at * len(rows) // REFERENCE_ROWS] for at in range(REFERENCE_ROWS)], reference.sha256)


def scales_of(label: Label) -> tuple[Scale, Scale]:
    """On which scale a model of this label adds, if it does, and on which it answers."""
    return ("log-odds", "probability") if isinstance(label, ClassLabel) else ("value", "value")


def digest_of(rows: Sequence[Row]) -> str:
    """A sha256 of rows that lie in no artefact of their own."""
    text = json.dumps(list(rows), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
