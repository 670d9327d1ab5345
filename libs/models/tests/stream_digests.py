"""Learn one stream with every algorithm, and print the digest of each learner's envelope.

Run as a program by the tests: `stream_digests.py RESTARTS`. After each of so many examples, chosen evenly, the learner
is written, dropped and restored. The digests must not show it.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterator

from tailrace_contracts import ModelSpec, parse_spec
from tailrace_contracts.spec import OnlineLearner
from tailrace_models import RiverModel
from tailrace_models.encoding import Row

KEY = b"k" * 32
EXAMPLES = {
    ("binary", "logistic-regression"): 1_500,
    ("binary", "hoeffding-adaptive-tree"): 3_000,
    ("binary", "adaptive-random-forest"): 500,
    ("regression", "linear-regression"): 1_500,
    ("regression", "hoeffding-adaptive-tree"): 2_000,
    ("regression", "adaptive-random-forest"): 300,
}


def spec(task: str) -> ModelSpec:
    """Two numbers, of which one is often missing, and two words."""
    return parse_spec(
        {
            "model": "stream",
            "owner": "o",
            "task": task,
            "label": {"name": "y"} if task == "binary" else {"name": "y", "loss_scale": 1},
            "features": [
                {"name": "a", "type": "numerical"},
                {"name": "b", "type": "numerical", "on_missing": "flag"},
                {"name": "w", "type": "categorical", "categories": ["x", "y", "z"], "on_missing": "flag"},
                {"name": "v", "type": "categorical", "categories": [str(number) for number in range(8)]},
            ],
        }
    )


def stream(task: str, examples: int) -> Iterator[tuple[Row, float]]:
    """A stream whose concept turns round half way, so that trees grow, are pruned and replaced."""
    chance = random.Random(11)
    for number in range(examples):
        a, b = chance.gauss(0, 1), chance.choice([None, chance.random()])
        w, v = chance.choice(["x", "y", "z", None, "?"]), str(chance.randrange(8))
        row = {"a": a, "b": b, "w": w, "v": v}
        score = (a if number < examples // 2 else -a) + (w == "x") + (v in "13") + chance.gauss(0, 0.5)
        # As decoded from a topic: every example brings strings of its own.
        yield json.loads(json.dumps(row)), int(score > 0.5) if task == "binary" else score


def learned(task: str, algorithm: str, restarts: int) -> bytes:
    """The envelope after the whole stream."""
    learner = OnlineLearner.model_validate({"algorithm": algorithm})
    model = RiverModel.build(learner, spec(task))
    examples = EXAMPLES[task, algorithm]
    stops = {examples * (number + 1) // (restarts + 1) for number in range(restarts)}
    for number, (row, label) in enumerate(stream(task, examples)):
        model.predict(row)
        model.learn(row, label)
        if number in stops:
            model = RiverModel.from_envelope(model.to_envelope(KEY), KEY).model
    return model.to_envelope(KEY)


if __name__ == "__main__":
    digests = {" ".join(name): hashlib.sha256(learned(*name, int(sys.argv[1]))).hexdigest() for name in EXAMPLES}
    print(json.dumps(digests))
