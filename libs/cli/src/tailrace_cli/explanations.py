"""`tailrace explanation`: a prediction as it was recorded, with why it was answered so.

The prediction's event is looked for on `predictions`, first in the partition that its id belongs to, and behind Kafka's
retention in the archive. Its explanation is what stands in the event; nothing is calculated anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

from tailrace_cli.connection import CommandError, Connection
from tailrace_contracts.events import Explanation, PredictionMade
from tailrace_contracts.ranges import LogRange
from tailrace_runtime.archive import ArchiveFile, archived_run
from tailrace_runtime.errors import ObjectMissing, TailraceError
from tailrace_runtime.log import newest, read_kept
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.producer import partition_of
from tailrace_runtime.records import Outgoing

TOPIC = "predictions"


async def recorded(connection: Connection, prediction_id: str) -> PredictionMade:
    """The prediction of this id. Raises CommandError when there is none, or when it cannot be looked for."""
    try:
        value = await _on_kafka(connection, prediction_id.encode()) or await _in_archive(
            connection, prediction_id.encode()
        )
    except TailraceError as error:
        raise CommandError(str(error)) from None
    if value is None:
        msg = (
            f"prediction {prediction_id!r} is neither on the topic {TOPIC} nor in the archive; a prediction that was just"
            " made, or that was refused, is not there (`tailrace dead-letters list`)"
        )
        raise CommandError(msg)
    return PredictionMade.model_validate_json(value)


async def _on_kafka(connection: Connection, key: bytes) -> bytes | None:
    ranges = list(await newest(connection.kafka, TOPIC))
    count = 1 + max((each.partition for each in ranges), default=0)
    likely = partition_of(Outgoing(TOPIC, None, key), range(count))
    for each in sorted(ranges, key=lambda held: held.partition != likely):
        async with aclosing(read_kept(connection.kafka, each)) as batches:
            async for batch in batches:
                for record in batch:
                    if record.key == key:
                        return record.value
    return None


async def _in_archive(connection: Connection, key: bytes) -> bytes | None:
    objects = ObjectStore.from_url(connection.object_store)
    runs = [run for name in await objects.list(f"archive/{TOPIC}") if (run := archived_run(name)) is not None]
    for run in runs:
        found = await asyncio.to_thread(_value, objects, run, key)
        if found is not None:
            return found
    return None


def _value(objects: ObjectStore, run: LogRange, key: bytes) -> bytes | None:
    return next(_values(objects, run, key), None)


def _values(objects: ObjectStore, run: LogRange, key: bytes) -> Iterator[bytes]:
    import pyarrow.compute as pc

    try:
        for table in ArchiveFile(objects, run).tables():
            yield from table.filter(pc.equal(table["key"], key))["value"].to_pylist()
    except ObjectMissing:
        return  # merged into a larger file since it was listed


def told(explanation: Explanation) -> str:
    """What the contributions are of and against, in a sentence."""
    how = (
        f"sampled over {explanation.permutations} permutations with seed {explanation.seed}"
        if explanation.permutations
        else "exact"
    )
    return (
        f"{explanation.scale}: base value {explanation.base_value:.6g} and the contributions below come to"
        f" {explanation.output:.6g}; {how}, against {explanation.reference_rows} reference rows"
        f" of {explanation.reference_sha256[:12]}"
    )


def lines(event: PredictionMade) -> list[dict[str, object]]:
    """Each feature with its value and what it contributed, the largest contributions first."""
    found = event.explanation
    if found is None:
        return [{"feature": name, "value": value} for name, value in event.features.items()]
    names = sorted(found.contributions, key=lambda name: -abs(found.contributions[name]))
    return [
        {
            "feature": name,
            "value": event.features.get(name),
            "contribution": float(f"{found.contributions[name]:.6g}"),
            **({"standard_error": float(f"{found.standard_errors[name]:.3g}")} if found.standard_errors else {}),
        }
        for name in names
    ]
