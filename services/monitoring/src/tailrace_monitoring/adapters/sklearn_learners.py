"""Small learners of scikit-learn: one that tells two samples apart, and one that foretells a model's error.

Both are gradient-boosted trees on histograms (`HistGradientBoosting*`): they take categories and missing values as they
are, find interactions, and learn a thousand rows in a tenth of a second. Nothing is searched for and nothing stored: the same
rows and seed give the same answer. They run on one thread, and are called off the event loop.

scikit-learn is imported when it is first needed: a console, and a model without these monitors, never load it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tailrace_statistics.multivariate import Apart, Table, apart, halves

TREES = 60
LEAVES = 12
LEAST_LEAF = 15


def tell_apart(one: Table, other: Table, seed: int) -> Apart:
    """How well a classifier that learned half of both samples tells the other halves apart."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    chance = np.random.default_rng(seed)
    (learn_one, test_one), (learn_other, test_other) = (halves(len(each.values), chance) for each in (one, other))
    rows = np.concatenate([one.values[learn_one], other.values[learn_other]])
    names = np.concatenate([np.zeros(len(learn_one)), np.ones(len(learn_other))])
    classifier: Any = HistGradientBoostingClassifier(
        max_iter=TREES,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=LEAST_LEAF,
        categorical_features=one.categorical,
        early_stopping=False,
        class_weight="balanced",
        random_state=0,
    )
    with threadpool_limits(limits=1):
        classifier.fit(rows, names)
        scores = [classifier.decision_function(each) for each in (one.values[test_one], other.values[test_other])]
    return apart(scores[0], scores[1])
