"""Performance estimated from probabilities: true where it can be, honest about how far off, exact with all labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tailrace_statistics.columns import NumericalFold
from tailrace_statistics.estimation import (
    BINS,
    Array,
    bin_of,
    calibrate,
    cell_name,
    estimate,
    performance,
    served_bins,
    table,
    too_few_inside,
    unlabelled,
)

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
NOTHING = np.zeros((2, 2, BINS))


def stream(seed: int, count: int, moved: float = 0.0, worth: float = 1.0) -> tuple[Floats, Labels]:
    """Probabilities of an overconfident model, and labels. `moved` shifts the inputs, `worth` turns the concept."""
    chance = np.random.default_rng(seed)
    inputs = chance.normal(moved, 1.5, count)
    labels = (chance.random(count) < 1 / (1 + np.exp(-worth * inputs))).astype(np.int64)
    return 1 / (1 + np.exp(-1.7 * inputs)), labels


def counted(probabilities: Floats, labels: Labels) -> Array:
    """Labelled answers as a table."""
    outcomes: dict[str, int] = {}
    for probability, label in zip(probabilities, labels, strict=True):
        name = cell_name(selected=bool(probability >= 0.5), positive=bool(label), probability=float(probability))
        outcomes[name] = outcomes.get(name, 0) + 1
    return table(outcomes)


def sketched(probabilities: Floats) -> Array:
    """Served answers by bin, as a window's sketches have them."""
    rows = []
    for side in (probabilities < 0.5, probabilities >= 0.5):
        fold = NumericalFold()
        fold.fold(probabilities[side])
        rows.append(served_bins(fold.summary()))
    return np.stack(rows)


def test_the_estimate_follows_inputs_that_move_and_its_interval_holds() -> None:
    """People would be told a wrong accuracy for months, with an interval that is a decoration."""
    inside, errors = 0, []
    for run in range(40):
        calibration = calibrate([counted(*stream(1000 * run + part, 600)) for part in range(6)])
        probabilities, labels = stream(1000 * run + 99, 1200, moved=1.2)
        found = estimate(NOTHING, sketched(probabilities), calibration)["accuracy"]
        realised = performance(counted(probabilities, labels))["accuracy"]
        inside += found.lower <= realised <= found.upper
        errors.append(abs(found.value - realised))
    assert inside >= 35
    assert np.mean(errors) < 0.015
    assert performance(counted(*stream(1, 2000)))["accuracy"] < realised - 0.02


def test_the_models_own_confidence_is_not_believed() -> None:
    """An overconfident model would be called better than it is."""
    calibration = calibrate([counted(*stream(part, 800)) for part in range(5)])
    probabilities, labels = stream(77, 4000)
    believed = float(np.maximum(probabilities, 1 - probabilities).mean())
    realised = performance(counted(probabilities, labels))["accuracy"]
    found = estimate(NOTHING, sketched(probabilities), calibration)["accuracy"].value
    assert believed > realised + 0.04
    assert abs(found - realised) < 0.015


def test_a_concept_that_turns_makes_the_estimate_wrong() -> None:
    """The documentation would promise too much: no estimate without labels sees this."""
    calibration = calibrate([counted(*stream(part, 800)) for part in range(5)])
    probabilities, labels = stream(5, 2000, worth=-1.0)
    found = estimate(NOTHING, sketched(probabilities), calibration)["accuracy"]
    assert found.lower > performance(counted(probabilities, labels))["accuracy"] + 0.2


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_labels_correct_the_estimate_until_it_is_the_realised_performance(share: float) -> None:
    """A cohort with all its labels would still be shown an estimate; half of them would not make it surer."""
    calibration = calibrate([counted(*stream(part, 800)) for part in range(5)])
    probabilities, labels = stream(3, 3000)
    some = int(share * 3000)
    known = counted(probabilities[:some], labels[:some])
    found = estimate(known, unlabelled(sketched(probabilities), known), calibration)
    realised = performance(counted(probabilities, labels))
    width = estimate(NOTHING, sketched(probabilities), calibration)["accuracy"]
    if share == 1:
        assert {name: each.value for name, each in found.items()} == realised
        assert all(each.lower == each.value == each.upper for each in found.values())
    else:
        assert found["accuracy"].value == pytest.approx(realised["accuracy"], abs=0.02)
        assert found["accuracy"].upper - found["accuracy"].lower <= width.upper - width.lower + 0.001


def test_labels_of_a_part_that_is_unlike_the_rest_do_not_mislead() -> None:
    """Where only the easy cases get labels, all would be called easy."""
    calibration = calibrate([counted(*stream(part, 800)) for part in range(5)])
    probabilities, labels = stream(4, 3000)
    easy = np.abs(probabilities - 0.5) > 0.4
    known = counted(probabilities[easy], labels[easy])
    found = estimate(known, unlabelled(sketched(probabilities), known), calibration)["accuracy"]
    realised = performance(counted(probabilities, labels))["accuracy"]
    assert performance(known)["accuracy"] > realised + 0.05
    assert abs(found.value - realised) < 0.015


def test_sketches_cost_little() -> None:
    """A large window would be estimated worse than a small one."""
    calibration = calibrate([counted(*stream(part, 800)) for part in range(5)])
    probabilities, _ = stream(8, 50_000)
    exact = counted(probabilities, np.zeros(len(probabilities), dtype=np.int64)).sum(axis=1)
    by_sketch = estimate(NOTHING, sketched(probabilities), calibration)
    by_hand = estimate(NOTHING, exact, calibration)
    for name in ("accuracy", "precision", "recall", "roc_auc"):
        assert by_sketch[name].value == pytest.approx(by_hand[name].value, abs=0.004)


def test_cohorts_that_disagree_widen_the_interval() -> None:
    """A model whose calibration wanders would be given an interval for one whose does not."""
    steady = [counted(*stream(part, 2000)) for part in range(8)]
    wandering = [counted(*stream(part, 2000, worth=1 + (-1) ** part * 0.5)) for part in range(8)]
    probabilities, _ = stream(9, 2000)
    widths = []
    for cohorts in (steady, wandering):
        found = estimate(NOTHING, sketched(probabilities), calibrate(cohorts))["accuracy"]
        widths.append(found.upper - found.lower)
    assert widths[1] > 2 * widths[0]


def test_where_no_label_ever_came_the_models_own_word_counts() -> None:
    """A region that the labelled cohorts never saw would be guessed from the far end of the curve."""
    probabilities = np.full(400, 0.3)
    calibration = calibrate([counted(probabilities, (np.arange(400) % 10 < 3).astype(np.int64))])
    found = estimate(NOTHING, sketched(np.full(300, 0.97)), calibration)["accuracy"]
    assert found.value == pytest.approx(0.97, abs=0.02)
    assert found.lower < 0.9


def test_bins_hold_ends_and_both_precisions_agree() -> None:
    """A probability of exactly 0 or 1 would be lost, or counted in two bins by label and by sketch."""
    assert (bin_of(0.0), bin_of(1.0)) == (0, BINS - 1)
    for value in (0.0, 1e-9, 0.5, 0.123456789, 1.0):
        fold = NumericalFold()
        fold.fold([value])
        assert served_bins(fold.summary())[bin_of(value)] == 1
    assert served_bins(None).sum() == 0


def test_too_few_inside_is_beyond_chance() -> None:
    """Intervals that fail would be shown for ever, or good ones be doubted for one bad month."""
    assert not too_few_inside(0, 1, 0.95)
    assert not too_few_inside(18, 20, 0.95)
    assert too_few_inside(14, 20, 0.95)
    assert too_few_inside(0, 2, 0.95)
