"""A peer of `validate`: Quix Streams with state, in an environment of its own. Started by `ingestion_peers`.

The events lie on a topic keyed by model, because Quix keeps state by key. Each is decoded as JSON, statistics of every
feature (`peer_statistics`: moments, or the same as `validate`) are kept in state with a changelog, and the event is sent
on. Prints events, seconds and CPU seconds.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import time
from typing import Any

from tests.benchmarks.peer_statistics import KEEPS


def run(bootstrap: str, source: str, count: int, kept: str) -> None:
    """Read so many events."""
    quixstreams: Any = importlib.import_module("quixstreams")
    name = f"quix-{time.time_ns()}"
    seen, began, updated = 0, [0.0, 0.0], KEEPS[kept]

    def fold(event: dict[str, Any], state: Any) -> dict[str, Any]:
        nonlocal seen
        if not seen:
            began[:] = [time.perf_counter(), time.process_time()]
        get, put = (state.get, state.set) if kept == "moments" else (state.get_bytes, state.set_bytes)
        for feature, number in event["features"].items():
            put(feature, updated(get(feature), number))
        seen += 1
        return event

    with tempfile.TemporaryDirectory() as folder:
        app = quixstreams.Application(
            bootstrap, consumer_group=name, auto_offset_reset="earliest", state_dir=folder, loglevel="ERROR"
        )
        frame = app.dataframe(app.topic(source, value_deserializer="json"))
        frame = frame.apply(fold, stateful=True)
        frame.to_topic(app.topic(f"{name}-out", value_serializer="json"))
        app.run(count=count)
        seconds, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
        print(json.dumps({"events": seen, "seconds": seconds, "cpu": cpu}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    parser.add_argument("events", type=int)
    parser.add_argument("kept", choices=KEEPS)
    given = parser.parse_args()
    run(given.bootstrap, given.topic, given.events, given.kept)
