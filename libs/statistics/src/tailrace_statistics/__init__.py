"""Mergeable summaries of columns, references, drift distances and sequential tests."""

from tailrace_statistics.columns import (
    CategoricalFold,
    Fold,
    NumericalFold,
    fold_for,
    merge,
    merge_all,
    merge_columns,
    quantile,
    resume_fold,
    standard_deviation,
)
from tailrace_statistics.distances import distance, jensen_shannon, kolmogorov_smirnov, psi
from tailrace_statistics.fairness import GroupCounts, count_groups, group_rates, merge_groups, selection_gap
from tailrace_statistics.intervals import Interval, wilson_interval
from tailrace_statistics.reference import MEDIA_TYPE as REFERENCE
from tailrace_statistics.reference import Reference, ReferenceInvalid
from tailrace_statistics.sequential import Comparison, PairedComparison
from tailrace_statistics.sketches import SketchInvalid

__all__ = [
    "REFERENCE",
    "CategoricalFold",
    "Comparison",
    "Fold",
    "GroupCounts",
    "Interval",
    "NumericalFold",
    "PairedComparison",
    "Reference",
    "ReferenceInvalid",
    "SketchInvalid",
    "count_groups",
    "distance",
    "fold_for",
    "group_rates",
    "jensen_shannon",
    "kolmogorov_smirnov",
    "merge",
    "merge_all",
    "merge_columns",
    "merge_groups",
    "psi",
    "quantile",
    "resume_fold",
    "selection_gap",
    "standard_deviation",
    "wilson_interval",
]
