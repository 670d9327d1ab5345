"""Small learners of scikit-learn: one that tells two samples apart, and one that foretells a model's error.

Both are gradient-boosted trees on histograms (`HistGradientBoosting*`): they take categories and missing values as they
are, find interactions, and learn a thousand rows in a tenth of a second. Nothing is searched for and nothing stored: the same
rows and seed give the same answer. They run on one thread, and are called off the event loop.

scikit-learn is imported when it is first needed: a console, and a model without these monitors, never load it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tailrace_statistics.direct_loss import Foretold, HeldOut, Lessons, judged
from tailrace_statistics.multivariate import Apart, Table, apart, halves

TREES = 60
LEAVES = 12
LEAST_LEAF = 15
FOLDS = 5


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
        random_state=0,
    )
    with threadpool_limits(limits=1):
        classifier.fit(rows, names)
        scores = [classifier.decision_function(each) for each in (one.values[test_one], other.values[test_other])]
    return apart(scores[0], scores[1])


def foretell(lessons: Lessons, window: Table) -> Foretold:
    """The mean loss that a window's rows lead one to expect, learned from labelled rows in the order of time.

    How far the answer may be off is seen on `FOLDS` stretches of time, each foretold by what was learned on the others, and from
    what each of these learners foretells for the window.
    """
    folds = np.array_split(np.arange(len(lessons.losses)), FOLDS)
    without = [_learned(lessons, np.concatenate([*folds[:place], *folds[place + 1 :]])) for place in range(FOLDS)]
    rows = lessons.rows.values
    unseen = np.concatenate([each.predict(rows[fold]) for each, fold in zip(without, folds, strict=True)])
    others = np.array([np.maximum(each.predict(window.values), 0.0).mean() for each in without])
    foretold = np.maximum(_learned(lessons, np.concatenate(folds)).predict(window.values), 0.0)
    return judged(lessons.losses, HeldOut(unseen, folds), foretold, others)


def _learned(lessons: Lessons, chosen: Any) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    learner: Any = HistGradientBoostingRegressor(
        max_iter=TREES,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=2 * LEAST_LEAF,
        categorical_features=lessons.rows.categorical,
        early_stopping=False,
        random_state=0,
    )
    with threadpool_limits(limits=1):
        learner.fit(lessons.rows.values[chosen], lessons.losses[chosen])
    return learner
