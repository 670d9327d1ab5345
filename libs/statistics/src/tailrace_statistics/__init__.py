"""Mergeable summaries of columns, references, drift distances and sequential tests."""

from tailrace_statistics.columns import (
    CategoricalFold,
    Fold,
    NumericalFold,
    distinct_values,
    fold_for,
    merge,
    merge_all,
    merge_columns,
    quantile,
    resume_fold,
    standard_deviation,
)
from tailrace_statistics.distances import distance, jensen_shannon, kolmogorov_smirnov, psi
from tailrace_statistics.distinct import DISTINCT_ERROR
from tailrace_statistics.errors import ErrorSums
from tailrace_statistics.fairness import (
    GroupCounts,
    compare_groups,
    count_groups,
    group_rates,
    merge_groups,
    selection_gap,
)
from tailrace_statistics.frequent import FREQUENT_ERROR
from tailrace_statistics.intervals import (
    Counted,
    Interval,
    koopman_interval,
    newcombe_interval,
    ratio_score,
    wilson_interval,
)
from tailrace_statistics.reference import MEDIA_TYPE as REFERENCE
from tailrace_statistics.reference import Reference, ReferenceInvalid
from tailrace_statistics.sequential import Comparison, PairedComparison
from tailrace_statistics.sketches import SketchInvalid

__all__ = [
    "DISTINCT_ERROR",
    "FREQUENT_ERROR",
    "REFERENCE",
    "CategoricalFold",
    "Comparison",
    "Counted",
    "ErrorSums",
    "Fold",
    "GroupCounts",
    "Interval",
    "NumericalFold",
    "PairedComparison",
    "Reference",
    "ReferenceInvalid",
    "SketchInvalid",
    "compare_groups",
    "count_groups",
    "distance",
    "distinct_values",
    "fold_for",
    "group_rates",
    "jensen_shannon",
    "kolmogorov_smirnov",
    "koopman_interval",
    "merge",
    "merge_all",
    "merge_columns",
    "merge_groups",
    "newcombe_interval",
    "psi",
    "quantile",
    "ratio_score",
    "resume_fold",
    "selection_gap",
    "standard_deviation",
    "wilson_interval",
]
