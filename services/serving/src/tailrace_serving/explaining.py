"""How a loaded model is explained: step by step, so that answers always have their turn in between.

A model's explainer is made when it is first asked for, in a thread, because it looks at all rows of the reference; it
is kept as long as the model. An explanation of a model that adds is one step and takes about as long as an answer. Any
other asks the model for thousands of mixed rows, a few in each step, and whoever calls says how long to rest between
two steps (`ToExplain.rest`): a request does not rest, a live prediction rests nine times as long as it works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping
from functools import partial
from time import perf_counter
from typing import Protocol

from tailrace_contracts.events import FeatureValue
from tailrace_models import Explained, Reference
from tailrace_serving.domain.arms import ReferenceOf
from tailrace_serving.domain.explanation import Explanation, ToExplain
from tailrace_serving.domain.refusal import Refused

Steps = Generator[None, None, Explained]
Beside = Callable[[Callable[[], Explained | None]], Awaitable[Explained | None]]
"""Runs one step where the model runs."""


class Explainer(Protocol):
    """What explains one model's answers, in steps. Blocking; every failure is an ArmFailed."""

    def mixed_rows(self, permutations: int) -> int:
        """How many rows the model is asked for one explanation."""
        ...

    def steps(self, row: Mapping[str, FeatureValue], permutations: int, seed: int) -> Steps:
        """Explain a row."""
        ...


class Explainable(Protocol):
    """A loaded model."""

    def explainer(self, reference: Reference | None) -> Explainer | None:
        """What explains its answers; None where there are no rows to explain against. Raises ArmFailed."""
        ...


class Explaining:
    """Explains the answers of one loaded model."""

    def __init__(self, model: Explainable) -> None:
        self._model = model
        self._explainer: Explainer | None = None
        self._making = asyncio.Lock()

    async def explain(self, asked: ToExplain, reference: ReferenceOf, beside: Beside) -> Explanation:
        """Why the model answers this row so. Raises ArmFailed, or Refused: no reference, or at too high a cost."""
        explainer = self._explainer or await self._made(reference)
        rows = explainer.mixed_rows(asked.permutations)
        if rows > asked.most_rows:
            raise Refused(
                "too-large",
                f"to explain a row the model is asked for {rows} mixed rows, expected at most {asked.most_rows};"
                " ask for fewer permutations, or for fewer rows at once",
            )
        steps = explainer.steps(asked.row, asked.permutations, asked.seed)
        while True:
            began = perf_counter()
            found = await beside(partial(_next, steps))
            if found is not None:
                return _told(found, asked.seed)
            await asyncio.sleep(asked.rest * (perf_counter() - began))

    async def _made(self, reference: ReferenceOf) -> Explainer:
        async with self._making:
            if self._explainer is None:
                found = await asyncio.to_thread(self._model.explainer, await _known(reference))
                if found is None:
                    raise Refused(
                        "unexplainable",
                        "the version has no reference rows to explain an answer against: import it with --reference"
                        " ROWS, or wait until its learner has learned",
                    )
                self._explainer = found
            return self._explainer


async def _known(reference: ReferenceOf) -> Reference | None:
    found = await reference()
    return None if found is None else Reference(found.rows, found.sha256)


def _next(steps: Steps) -> Explained | None:
    try:
        next(steps)
    except StopIteration as done:
        found: Explained = done.value
        return found
    return None


def _told(found: Explained, seed: int) -> Explanation:
    return Explanation(
        method=found.method,
        scale=found.scale,
        base_value=found.base_value,
        output=found.output,
        contributions=found.contributions,
        standard_errors=found.standard_errors,
        permutations=found.permutations,
        seed=seed if found.permutations else 0,
        reference_rows=found.reference_rows,
        reference_sha256=found.reference_sha256,
    )
