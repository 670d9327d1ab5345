"""A model's features as rules, compiled once for each spec and applied to every row.

A row leaves the rules twice: as it was asked, which is what the prediction event carries (ingestion applies the same
policies to it and counts what they changed), and as the model is to see it, with the spec's policies applied: a value
out of limits clipped or made missing, an unseen category made missing. Where no policy had anything to do, both are
the same object.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import NamedTuple

from tailrace_contracts.events import FeatureValue
from tailrace_contracts.spec import CategoricalFeature, ModelSpec, NumericalFeature
from tailrace_serving.domain.refusal import Refused, brief

Features = dict[str, FeatureValue]


class Row(NamedTuple):
    """One question: features as the caller gave them, and as the model is to see them."""

    asked: Features
    seen: Features


class NumericalRule:
    """One numerical feature's limits and policies."""

    __slots__ = ("_highest", "_lowest", "_missing_is_fine", "_on_out_of_limits", "least", "most", "name")

    def __init__(self, feature: NumericalFeature) -> None:
        self.name = feature.name
        self.least = max(feature.limits.min, -sys.float_info.max)
        self.most = min(feature.limits.max, sys.float_info.max)
        self._lowest = feature.limits.min
        self._highest = feature.limits.max
        self._on_out_of_limits = feature.on_out_of_limits
        self._missing_is_fine = feature.on_missing != "reject"

    def asked(self, value: object, where: str) -> float | None:
        """The value as a number; booleans count as 0 and 1. Raises Refused."""
        if type(value) is float:
            number = value
        elif value is None:
            if not self._missing_is_fine:
                raise _missing(self.name, where, "a number")
            return None
        elif isinstance(value, int | float):
            try:
                number = float(value)
            except OverflowError:
                raise Refused("unacceptable", f"{where}feature {self.name!r} is too large for a float64") from None
        else:
            raise Refused("malformed", f"{where}feature {self.name!r} is {_shown(value)}, expected a number")
        if not math.isfinite(number):
            raise Refused(
                "unacceptable",
                f"{where}feature {self.name!r} is {_shown(number)}, expected a finite number; send null for a missing value",
            )
        return number

    def seen(self, value: float | None, where: str) -> float | None:
        """The value as the model is to see it. Raises Refused where the spec says so."""
        if value is None or self._lowest <= value <= self._highest:
            return value
        if self._on_out_of_limits == "clip":
            return min(max(value, self._lowest), self._highest)
        if self._on_out_of_limits == "null":
            return None
        if self._on_out_of_limits == "flag":
            return value
        raise Refused(
            "unacceptable",
            f"{where}feature {self.name!r} is {value:g}, expected {self._lowest:g} to {self._highest:g}",
        )


class CategoricalRule:
    """One categorical feature's categories and policies."""

    __slots__ = ("_categories", "_known", "_missing_is_fine", "_on_unseen", "least", "most", "name")

    def __init__(self, feature: CategoricalFeature) -> None:
        self.name = feature.name
        self.least, self.most = math.inf, -math.inf  # no number is between these
        self._categories = feature.categories
        self._known = frozenset(feature.categories)
        self._on_unseen = feature.on_unseen
        self._missing_is_fine = feature.on_missing != "reject"

    def asked(self, value: object, where: str) -> str | None:
        """The value as a word. Raises Refused."""
        if isinstance(value, str):
            return value
        if value is None:
            if not self._missing_is_fine:
                raise _missing(self.name, where, "a string")
            return None
        raise Refused("malformed", f"{where}feature {self.name!r} is {_shown(value)}, expected a string")

    def seen(self, value: str | None, where: str) -> str | None:
        """The value as the model is to see it. Raises Refused where the spec says so."""
        if value is None or value in self._known or self._on_unseen == "flag":
            return value
        if self._on_unseen == "null":
            return None
        raise Refused(
            "unacceptable",
            f"{where}feature {self.name!r} is {_shown(value)}, expected one of {listed(self._categories)}",
        )


class FeatureRules:
    """All features of one spec, in its order."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.names = spec.feature_names
        self.specs = {feature.name: feature for feature in spec.features}
        self.numbers = frozenset(each.name for each in spec.features if isinstance(each, NumericalFeature))
        self._model = spec.model
        self._rules: list[NumericalRule | CategoricalRule] = [
            NumericalRule(each) if isinstance(each, NumericalFeature) else CategoricalRule(each)
            for each in spec.features
        ]

    def row(self, given: Mapping[str, object], where: str = "") -> Row:
        """One row of values by feature name. `where` goes before a sentence, such as `row 3: `. Raises Refused."""
        asked: Features = {}
        changed: Features = {}
        try:
            for rule in self._rules:
                name = rule.name
                found = given.get(name)
                if type(found) is float and rule.least <= found <= rule.most:
                    asked[name] = found
                    continue
                asked[name] = value = rule.asked(found, where)
                seen = rule.seen(value, where)  # type: ignore[arg-type]  # a rule takes what it has given
                if seen != value:
                    changed[name] = seen
        except Refused:
            self._refuse_unknown(given, where)  # a misspelt name says more than the missing one
            raise
        if len(given) != len(asked):
            self._refuse_unknown(given, where)
        return Row(asked, {**asked, **changed} if changed else asked)

    def _refuse_unknown(self, given: Mapping[str, object], where: str) -> None:
        for name in given:
            if name not in self.specs:
                raise self.unknown(name, where)

    def unknown(self, name: str, where: str = "") -> Refused:
        """The refusal of a feature that the model does not have."""
        return Refused(
            "malformed", f"{where}feature {brief(name)} is unknown; model {self._model!r} expects {listed(self.names)}"
        )

    def example(self) -> Features:
        """A row within all limits, for warming a model."""
        return {name: _middle(feature) for name, feature in self.specs.items()}


def listed(words: tuple[str, ...], most: int = 12) -> str:
    """Words for a sentence, at most `most` of them."""
    shown = ", ".join(repr(word) for word in words[:most])
    return f"{shown} and {len(words) - most} more" if len(words) > most else shown


def _middle(feature: NumericalFeature | CategoricalFeature) -> FeatureValue:
    if isinstance(feature, CategoricalFeature):
        return feature.categories[0]
    return min(max(0.0, feature.limits.min), feature.limits.max)


def _missing(name: str, where: str, expected: str) -> Refused:
    return Refused("unacceptable", f"{where}feature {name!r} is missing, expected {expected}")


def _shown(value: object) -> str:
    return "NaN" if isinstance(value, float) and math.isnan(value) else brief(value)
