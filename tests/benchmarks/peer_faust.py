"""A peer of `validate`: a Faust table, updated for every event and feature. Started by `ingestion_peers`.

Each event is decoded with msgspec, statistics of every feature (`peer_statistics`: moments, or the same as `validate`)
are kept in a table with a changelog, and the event is sent on. Prints events, seconds and CPU seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from typing import Any

import faust
import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.benchmarks.peer_statistics import KEEPS


async def create(bootstrap: str, *names: str) -> None:
    """Create topics of four partitions."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 4, 1) for name in names])
    await admin.close()


async def run(bootstrap: str, source: str, count: int, kept: str) -> None:
    """Read so many events."""
    name = f"faust-{time.time_ns()}"
    await create(bootstrap, f"{name}-statistics-changelog", f"{name}-out")
    with tempfile.TemporaryDirectory() as folder:
        app: Any = faust.App(
            name,
            broker=f"kafka://{bootstrap}",
            datadir=folder,
            store="memory://",
            consumer_auto_offset_reset="earliest",
            topic_allow_declare=False,
            topic_disable_leader=True,
            stream_wait_empty=False,
            web_enabled=False,
            producer_acks=-1,
            logging_config=None,
            loghandlers=[],
            worker_redirect_stdouts=False,
        )
        raw = faust.Schema(key_type=str, value_type=bytes, value_serializer="raw") if kept == "same" else None
        table = app.Table("statistics", partitions=4, schema=raw)
        events = app.topic(source, key_type=bytes, value_type=bytes, value_serializer="raw")
        out = app.topic(f"{name}-out", key_type=bytes, value_type=bytes, value_serializer="raw")
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        done, seen, began, updated = asyncio.Event(), 0, [0.0, 0.0], KEEPS[kept]

        async def fold(stream: Any) -> None:
            nonlocal seen
            async for key, value in stream.items():
                if not seen:
                    began[:] = [time.perf_counter(), time.process_time()]
                for feature, number in decode(value)["features"].items():
                    table[feature] = updated(table.get(feature), number)
                await out.send(key=key, value=value)
                seen += 1
                if seen == count:
                    done.set()
                    return

        app.agent(events, concurrency=1)(fold)
        await app.start()
        await done.wait()
        seconds, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
        print(json.dumps({"events": count, "seconds": seconds, "cpu": cpu}), flush=True)
        await asyncio.wait_for(app.stop(), 20)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    parser.add_argument("events", type=int)
    parser.add_argument("kept", choices=KEEPS)
    given = parser.parse_args()
    asyncio.run(run(given.bootstrap, given.topic, given.events, given.kept))
