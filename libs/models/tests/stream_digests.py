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
EXAMPLES = {"logistic-regression": 1_500, "hoeffding-adaptive-tree": 3_000, "adaptive-random-forest": 500}


def spec() -> ModelSpec:
    """Two numbers, of which one is often missing, and two words."""
    return parse_spec(
        {
            "model": "stream",
            "owner": "o",
            "label": {"name": "y"},
            "features": [
                {"name": "a", "type": "numerical"},
                {"name": "b", "type": "numerical", "on_missing": "flag"},
                {"name": "w", "type": "categorical", "categories": ["x", "y", "z"], "on_missing": "flag"},
                {"name": "v", "type": "categorical", "categories": [str(number) for number in range(8)]},
            ],
        }
    )


def stream(examples: int) -> Iterator[tuple[Row, int]]:
    """A stream whose concept turns round half way, so that trees grow, are pruned and replaced."""
    chance = random.Random(11)
    for number in range(examples):
        a, b = chance.gauss(0, 1), chance.choice([None, chance.random()])
        w, v = chance.choice(["x", "y", "z", None, "?"]), str(chance.randrange(8))
        row = {"a": a, "b": b, "w": w, "v": v}
        score = (a if number < examples // 2 else -a) + (w == "x") + (v in "13") + chance.gauss(0, 0.5)
        # As decoded from a topic: every example brings strings of its own.
        yield json.loads(json.dumps(row)), int(score > 0.5)


def learned(algorithm: str, restarts: int) -> bytes:
    """The envelope after the whole stream."""
    learner = OnlineLearner.model_validate({"algorithm": algorithm})
    model = RiverModel.build(learner, spec())
    examples = EXAMPLES[algorithm]
    stops = {examples * (number + 1) // (restarts + 1) for number in range(restarts)}
    for number, (row, label) in enumerate(stream(examples)):
        model.predict(row)
        model.learn(row, label)
        if number in stops:
            model = RiverModel.from_envelope(model.to_envelope(KEY), KEY).model
    return model.to_envelope(KEY)


if __name__ == "__main__":
    print({name: hashlib.sha256(learned(name, int(sys.argv[1]))).hexdigest() for name in EXAMPLES})
