"""The parts of a window: which there are, what each is called, which columns it has, and which rows are sampled.

A message must stay below its topic's limit (1 MiB), so the columns are weighed: a numerical column takes at most 6.5 kB
(a KLL sketch, a distinct count, 32 frequent values), a categorical one at most 28 kB for unseen words and the length of
its categories. Features that weigh up to 350 kB together (53 numerical ones) are sliced by version; above that, slices
have the outputs only, and the features lie in parts of at most 700 kB. By group they are sliced as long as all groups
together weigh at most 10 MB, so that a merged window fits into its own topic's messages (12 MiB).

The row sample holds the rows of the lowest ranks; a rank is a hash of partition and offset. So the sample is uniform,
and that of the whole is the lowest of all parts', however the events were spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from tailrace_contracts.events import Arm, FeatureValue, SampledRow
from tailrace_contracts.spec import CategoricalFeature, Feature, ModelSpec
from tailrace_ingestion.domain.checks import Column, Integers, NumberColumn
from tailrace_statistics import distinct

OUTPUTS = ("prediction", "probability", "probability_if_positive", "probability_if_negative", "latency_ms")
"""Columns beside the features; a feature of the same name takes precedence."""

GROUPS = 40
"""Groups of a protected attribute that have a slice of their own."""

OTHER, MISSING = "other", "missing"
LONGEST_WORD = 64
_SLICED_BYTES = 350_000
_PART_BYTES = 700_000
_WINDOW_BYTES = 10_000_000
_ARMS_EXPECTED = 4
_NUMBER_BYTES = 6_500
_UNSEEN_BYTES = 28_000
_SAMPLED_VALUE_BYTES = 24


class Facet(NamedTuple):
    """What a part is about: an arm and its version, a protected group, a chunk of features, the row sample, or what was late."""

    arm: Arm | None = None
    version: int | None = None
    attribute: str | None = None
    group: str | None = None
    chunk: int = 0

    @classmethod
    def of_arm(cls, word: str) -> Facet:
        """The facet of `champion/3`.

        >>> Facet.of_arm("champion/3").name
        'arm:champion/3'
        """
        arm, _, version = word.partition("/")
        return cls(arm=cast("Arm", arm), version=int(version) if version else None)

    @property
    def name(self) -> str:
        """Its name, part of the key of its partials."""
        if self.arm is not None:
            return f"arm:{arm_word(self.arm, self.version)}"
        if self.attribute is not None:
            return f"group:{self.attribute}={self.group}"
        return {0: "not-served", -1: "sample", -2: "late"}.get(self.chunk, f"features:{self.chunk}")

    @property
    def counts(self) -> bool:
        """Whether its events add up to the window's."""
        return (self.arm is not None and self.arm != "shadow") or self == NOT_SERVED


NOT_SERVED = Facet()
SAMPLE = Facet(chunk=-1)
LATE = Facet(chunk=-2)


def arm_word(arm: str, version: int | None) -> str:
    """How an arm and a version are written."""
    return f"{arm}/{'' if version is None else version}"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a spec's columns are spread over parts.

    `sliced` features by version, `grouped` ones by protected group too; those that are not sliced lie in `chunks`.
    """

    features: frozenset[str]
    sliced: tuple[str, ...]
    grouped: tuple[str, ...]
    chunks: tuple[tuple[str, ...], ...]
    sample_rows: int


def plan_of(spec: ModelSpec) -> Plan:
    """The parts that a spec's windows have."""
    rows = min(spec.monitors.sample_rows, max(_PART_BYTES // _row_bytes(spec), 1)) if spec.monitors.sample_rows else 0
    names = spec.feature_names
    weight = sum(map(_weight, spec.features))
    if weight <= _SLICED_BYTES:
        grouped = names if weight * (_slots(spec) + _ARMS_EXPECTED) <= _WINDOW_BYTES else ()
        return Plan(frozenset(names), names, grouped, (), rows)
    chunks: list[list[str]] = []
    room = 0
    for feature in spec.features:
        if _weight(feature) > room:
            chunks.append([])
            room = _PART_BYTES
        chunks[-1].append(feature.name)
        room -= _weight(feature)
    return Plan(frozenset(names), (), (), tuple(map(tuple, chunks)), rows)


def _slots(spec: ModelSpec) -> int:
    """The most group slices that a window can have."""
    kinds = {feature.name: feature for feature in spec.features}
    protected = [kinds[name] for name in spec.protected]
    known = (len(each.categories) if isinstance(each, CategoricalFeature) else GROUPS for each in protected)
    return sum(min(count, GROUPS) + 2 for count in known)


def _weight(feature: Feature) -> int:
    if isinstance(feature, CategoricalFeature):
        return _UNSEEN_BYTES + sum(len(word.encode()) + 14 for word in feature.categories)
    return _NUMBER_BYTES


def _row_bytes(spec: ModelSpec) -> int:
    words = sum(isinstance(feature, CategoricalFeature) for feature in spec.features)
    return sum(len(name.encode()) + _SAMPLED_VALUE_BYTES for name in spec.feature_names) + words * LONGEST_WORD + 200


def groups_of(column: Column) -> tuple[list[str], Integers]:
    """The names of a protected attribute's groups, and the group of each row as a place among the names.

    Which values have a group of their own must not depend on the order of events: the first 40 categories of the spec,
    or the whole numbers from 0 to 39. Everything else is `other`, no value is `missing`.
    """
    if isinstance(column, NumberColumn):
        names, values = [str(float(each)) for each in range(GROUPS)], column.values
        absent = np.isnan(values)
        whole = np.where(absent, -1.0, values)
        own = (whole >= 0) & (whole < GROUPS) & (whole == np.floor(whole))
        codes = np.where(own, whole, 0).astype(np.int64)
    else:
        known = min(column.known, GROUPS)
        names, codes = column.words[:known], column.codes
        absent, own = codes < 0, (codes >= 0) & (codes < known)
    codes = np.where(own, codes, np.where(absent, len(names) + 1, len(names)))
    return [*names, OTHER, MISSING], codes


def sampled(
    sample: tuple[SampledRow, ...], offsets: Integers, partition: int, columns: Mapping[str, Column], plan: Plan
) -> tuple[SampledRow, ...]:
    """The sample with these events considered; the very same tuple where it has not changed."""
    rows, ranks = plan.sample_rows, _ranks(offsets, partition)
    bound = sample[-1].rank if rows and len(sample) >= rows else 2.0
    chosen = np.flatnonzero(ranks < bound) if rows else np.empty(0, np.int64)
    if not len(chosen):
        return sample
    if len(chosen) > rows:
        chosen = chosen[np.argpartition(ranks[chosen], rows - 1)[:rows]]
    new = [
        SampledRow.model_construct(
            rank=float(ranks[at]),
            partition=partition,
            offset=int(offsets[at]),
            values=_values(columns, at, plan),
        )
        for at in chosen.tolist()
    ]
    return lowest([*sample, *new], rows)


def lowest(sample: Sequence[SampledRow], rows: int) -> tuple[SampledRow, ...]:
    """The rows of the lowest ranks."""
    return tuple(sorted(sample, key=lambda row: (row.rank, row.partition, row.offset))[:rows])


def _ranks(offsets: Integers, partition: int) -> npt.NDArray[np.float64]:
    seed = distinct.mixed(np.array([partition + 1], np.uint64))
    hashes = distinct.mixed(distinct.mixed(offsets.astype(np.uint64)) ^ seed)
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _values(columns: Mapping[str, Column], at: int, plan: Plan) -> dict[str, FeatureValue]:
    """A row: every feature, and the outputs that there are."""
    row: dict[str, FeatureValue] = {}
    for name, column in columns.items():
        is_output, value = name not in plan.features, _value(column, at)
        if not is_output:
            row[name] = value
        elif value is not None and not name.startswith("probability_if_"):
            row[name] = float(value) if isinstance(value, str) else value
    return row


def _value(column: Column, at: int) -> float | str | None:
    if isinstance(column, NumberColumn):
        value = float(column.values[at])
        return None if np.isnan(value) else value
    code = int(column.codes[at])
    return None if code < 0 else column.words[code][:LONGEST_WORD]
