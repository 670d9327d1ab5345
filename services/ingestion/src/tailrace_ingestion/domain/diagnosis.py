"""The slow path: why a decoder refused an event, in one sentence for the person who sent it.

Called for refused events only, so it may read the whole value again. Python's own JSON reader takes NaN and Infinity,
which JSON does not have: where it finds them, that is the diagnosis.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from tailrace_contracts.spec import ModelSpec
from tailrace_ingestion.domain.reasons import Reason, Rejection

_SHOWN = 80


def of_value(value: bytes | None, expected: str, problem: str) -> Rejection:
    """Why `value` is no event. `expected` is the event's type, `problem` what the typed decoder said."""
    if value is None:
        return Rejection(Reason.NOT_AN_EVENT, f"the record has no value, expected a {expected} event as JSON")
    try:
        document = json.loads(value)
    except RecursionError:
        return Rejection(Reason.BROKEN_JSON, f"the value is nested too deeply, expected a {expected} event as JSON")
    except ValueError as error:
        return Rejection(Reason.BROKEN_JSON, f"the value is not JSON ({error}), expected a {expected} event as JSON")
    if not isinstance(document, dict):
        found = kind_of(document)
        return Rejection(Reason.NOT_AN_EVENT, f"the value is {found}, expected a {expected} event as a JSON object")
    model = document.get("model") if isinstance(document.get("model"), str) else None
    for path, number in _not_finite(document):
        return Rejection(Reason.NOT_FINITE, _finite_sentence(path, number), model)
    return Rejection(Reason.NOT_AN_EVENT, f"not a {expected} event: {_plain(problem)}", model)


def of_features(raw: bytes, spec: ModelSpec, problem: str) -> Rejection:
    """Why `raw` are not the features of the spec."""
    features = json.loads(raw)
    if not isinstance(features, dict):
        sentence = f"features of model {spec.model} is {kind_of(features)}, expected an object with a value for each"
        return Rejection(Reason.WRONG_TYPE, sentence, spec.model)
    for name, value in features.items():
        for path, number in _not_finite(value, f"features.{name}"):
            return Rejection(Reason.NOT_FINITE, _finite_sentence(path, number), spec.model)
    return _names_or_types(features, spec) or Rejection(Reason.WRONG_TYPE, f"features: {_plain(problem)}", spec.model)


def _names_or_types(features: Mapping[str, Any], spec: ModelSpec) -> Rejection | None:
    missing = [name for name in spec.feature_names if name not in features]
    if missing:
        sentence = f"feature {_names(missing)} of model {spec.model} is missing, expected a value or null for each"
        return Rejection(Reason.MISSING_FEATURE, sentence, spec.model)
    extra = [name for name in features if name not in spec.feature_names]
    if extra:
        sentence = (
            f"feature {_names(extra)} is not in the spec of model {spec.model}; remove it or apply a spec that has it"
        )
        return Rejection(Reason.EXTRA_FEATURE, sentence, spec.model)
    for feature in spec.features:
        value = features[feature.name]
        expected = "a number or null" if feature.type == "numerical" else "a string or null"
        if not _fits(value, feature.type):
            sentence = (
                f"feature {feature.name} of model {spec.model} is {kind_of(value)} {shown(value)}, expected {expected}"
            )
            return Rejection(Reason.WRONG_TYPE, sentence, spec.model)
    return None


def _fits(value: Any, kind: str) -> bool:
    if value is None:
        return True
    if kind == "numerical":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str)


def _not_finite(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield path, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _not_finite(inner, f"{path}.{name}".removeprefix("."))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _not_finite(inner, f"{path}[{index}]")


def _finite_sentence(path: str, number: float) -> str:
    found = "NaN" if math.isnan(number) else "infinite"
    return f"{path} is {found}, expected a finite number, or null where the value is missing"


def _names(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(shown(name) for name in names[:3]) + more


def shown(value: object) -> str:
    """A producer's value, short enough for a sentence."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def kind_of(value: object) -> str:
    """The JSON type of a value, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"


def _plain(problem: str) -> str:
    """The decoder's words, with the path in front: `time: expected datetime, got int`."""
    text, _, place = problem.partition(" - at ")
    path = place.strip("`").removeprefix("$").removeprefix(".")
    text = text.replace("`", "")
    return f"{path}: {text[:1].lower()}{text[1:]}" if path else f"{text[:1].lower()}{text[1:]}"
