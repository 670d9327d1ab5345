"""A run: one learner's life from its first example on, and the name that stays with it through crashes.

A batch run is named by whoever requests it. An online run is named here: by the model, the revision of the spec that
began it, and a fingerprint of what its state depends on. Two processes that begin the same run give it the same name,
and a checkpoint of another learner or of other features is told apart before its bytes are opened.
"""

from __future__ import annotations

import hashlib
import json

from tailrace_contracts.spec import ModelSpec, OnlineLearner

_STATE_DEPENDS_ON = {"kind", "algorithm", "seed"}
_ASKED = {"type", "name", "categories"}


def fingerprint(spec: ModelSpec, learner: OnlineLearner) -> str:
    """Eight hexadecimal digits of what the learner's state depends on: algorithm, seed, features and classes.

    Limits, policies and the pace of publishing may change without beginning a new run.
    """
    parts = {
        "learner": learner.model_dump(mode="json", include=_STATE_DEPENDS_ON),
        "features": [each.model_dump(mode="json", include=_ASKED) for each in spec.features],
        "label": spec.label.model_dump(mode="json", include={"classes", "positive"}),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def online_run_id(spec: ModelSpec, learner: OnlineLearner, spec_revision: int) -> str:
    """The name of the run that begins with this revision of the spec."""
    return f"{spec.model}-online-{spec_revision}-{fingerprint(spec, learner)}"


def continues(run_id: str, spec: ModelSpec, learner: OnlineLearner) -> bool:
    """Whether a run of this name goes on under this spec."""
    return run_id.startswith(f"{spec.model}-online-") and run_id.endswith(f"-{fingerprint(spec, learner)}")
