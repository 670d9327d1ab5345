"""Why a request gets no answer: one sentence for the caller, and a kind that the front turns into its own code."""

from __future__ import annotations

from typing import Literal

Kind = Literal["malformed", "unknown", "too-large", "unacceptable", "unavailable"]
"""malformed: not a request of the protocol. unknown: no such model or version. too-large: over a limit of size.
unacceptable: values that the model's spec refuses. unavailable: right question, nobody can answer it now."""


class Refused(Exception):  # noqa: N818 — a fact, as in the runtime's errors
    """The request is not answered. `sentence` names the field, what was found and what was expected."""

    def __init__(self, kind: Kind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence
