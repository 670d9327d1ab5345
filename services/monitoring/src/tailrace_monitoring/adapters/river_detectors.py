"""Change detectors of river, each behind the one question: has the error rate just risen?

What the spec's `delta` means to each:

- `adwin`: the confidence of ADWIN (Bifet and Gavaldà 2007) for two sub-windows to differ;
- `ddm`: the chance of the normal distribution beyond the number of standard deviations that DDM (Gama et al. 2004)
  lets the error rate rise above its lowest: 3.3 at the default, where the paper has 3;
- `hddm-a` (or `hddm`): the confidence of HDDM with Hoeffding's bound (Frías-Blanco et al. 2015), one-sided;
- `hddm-w`: the same with McDiarmid's bound on a mean that forgets (weight 0.05 for the newest error);
  where errors are frequent it raises more false alarms than the others (docs/benchmarks.md);
- `page-hinkley`: Page (1954) sums the excess of the error over its mean; the sum may rise to `10 ln(1/delta)` (76 at
  the default), with a tolerance of 0.02 an example. The factor was chosen on streams of known drift; it is no bound.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

from river.drift import ADWIN, PageHinkley
from river.drift.binary import DDM, HDDMA, HDDMW

from tailrace_contracts.spec import ConceptDriftMonitor
from tailrace_monitoring.domain.concept import Detector

PAGE_HINKLEY_SCALE = 10.0
PAGE_HINKLEY_TOLERANCE = 0.02


class RisingAdwin:
    """ADWIN, without its alarms for a falling error rate."""

    def __init__(self, delta: float) -> None:
        self._adwin: Any = ADWIN(delta=delta)

    def update(self, error: float) -> bool:
        """True when the window was cut and what is left has the higher error rate."""
        before = self._adwin.estimation
        self._adwin.update(error)
        return bool(self._adwin.drift_detected and self._adwin.estimation > before)


class RisingPageHinkley:
    """Page-Hinkley on the upward side."""

    def __init__(self, delta: float, min_examples: int) -> None:
        self._test: Any = PageHinkley(
            min_instances=min_examples,
            delta=PAGE_HINKLEY_TOLERANCE,
            threshold=PAGE_HINKLEY_SCALE * math.log(1 / delta),
            mode="up",
        )

    def update(self, error: float) -> bool:
        """True when the sum has passed its limit."""
        self._test.update(error)
        return bool(self._test.drift_detected)


class RisingBinary:
    """DDM or an HDDM, one-sided: only a rise of the error rate."""

    def __init__(self, test: Any) -> None:
        self._test = test

    def update(self, error: float) -> bool:
        """True when the bound says that the error rate has risen."""
        self._test.update(bool(error))
        return bool(self._test.drift_detected)


def _ddm(delta: float, min_examples: int) -> RisingBinary:
    deviations = NormalDist().inv_cdf(1 - delta)
    return RisingBinary(DDM(warm_start=min_examples, warning_threshold=deviations * 2 / 3, drift_threshold=deviations))


def _hddm(kind: Any, delta: float) -> RisingBinary:
    return RisingBinary(kind(drift_confidence=delta, warning_confidence=min(0.5, delta * 10), two_sided_test=False))


def detector(monitor: ConceptDriftMonitor) -> Detector:
    """The detector that the spec asks for."""
    match monitor.detector:
        case "adwin":
            return RisingAdwin(monitor.delta)
        case "ddm":
            return _ddm(monitor.delta, monitor.min_examples)
        case "hddm-a" | "hddm":
            return _hddm(HDDMA, monitor.delta)
        case "hddm-w":
            return _hddm(HDDMW, monitor.delta)
        case "page-hinkley":
            return RisingPageHinkley(monitor.delta, monitor.min_examples)
