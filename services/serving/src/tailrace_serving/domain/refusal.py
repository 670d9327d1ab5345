"""Why a request gets no answer: one sentence for the caller, and a kind that the front turns into its own code."""

from __future__ import annotations

from typing import Literal

Kind = Literal[
    "malformed",
    "unknown",
    "too-slow",
    "too-large",
    "unsupported",
    "unacceptable",
    "busy",
    "unavailable",
    "unexplainable",
]
"""malformed: not a request of the protocol. unknown: no such model or version. too-slow: the request did not arrive in
time. too-large: over a limit of size. unsupported: in an encoding that is not spoken. unacceptable: values that the
model's spec refuses. busy: too many requests at once. unavailable: right question, nobody can answer it now.
unexplainable: the version has no reference rows to explain an answer against."""


class Refused(Exception):  # noqa: N818 — a fact, as in the runtime's errors
    """The request is not answered. `sentence` names the field, what was found and what was expected."""

    def __init__(self, kind: Kind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence


def brief(value: object, most: int = 60) -> str:
    """A caller's value for a sentence, cut short: what came in must not come back whole."""
    if isinstance(value, str | bytes | list | dict):
        value = value[:most] if isinstance(value, str | bytes) else value if len(value) < most else _start(value, most)
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"


def _start(value: list[object] | dict[object, object], most: int) -> object:
    return value[:most] if isinstance(value, list) else list(value)[:most]
