"""From a version back to what it was made from, and from an event to the versions that learned from it.

What versions learned from are ranges of `labelled-examples`. A prediction, by its id or by its place on any of the topics
that it went through, is followed to its labelled examples: on Kafka first, and behind its retention in the archive.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import aclosing

from tailrace_cli.connection import CommandError, Connection
from tailrace_cli.state import Known
from tailrace_contracts.aliases import aliases_of, number_of, unknown_name
from tailrace_contracts.events import VersionChanged
from tailrace_contracts.ranges import LogRange, LogRanges, Trigger
from tailrace_runtime.archive import ArchiveFile, archived_run
from tailrace_runtime.errors import ObjectMissing, TailraceError
from tailrace_runtime.log import newest, read_kept, read_ranges
from tailrace_runtime.objects import ObjectStore

EXAMPLES = "labelled-examples"
SOURCES = ("prediction-events", "predictions", "label-events", "labels")
_PLACE = re.compile(r"(?P<topic>[a-z-]+)\[(?P<partition>\d{1,9})\]@(?P<offset>\d{1,18})")


def names(facts: Known, model: str) -> dict[str, int]:
    """Every name that means a version of the model now."""
    return aliases_of(facts.deployments.get(model), max(facts.versions.get(model, {}), default=0))


def number(facts: Known, model: str, named: str) -> int:
    """The number of a version that was named. Raises CommandError for a name that means none."""
    known = names(facts, model)
    found = number_of(named, known)
    if found is None:
        raise CommandError(unknown_name(model, named, known))
    return found


def version(facts: Known, model: str, named: str) -> VersionChanged:
    """A version by number or name. Raises CommandError where there is none."""
    found = facts.versions.get(model, {}).get(number(facts, model, named))
    if found is None:
        raise CommandError(f"{model} has no version {named}; `tailrace models` names those that there are")
    return found


def that_saw(facts: Known, model: str, places: Iterable[Trigger]) -> list[VersionChanged]:
    """The versions that learned from one of these records, oldest first."""
    wanted = list(places)
    versions = sorted(facts.versions.get(model, {}).values(), key=lambda each: each.version)
    return [each for each in versions if any(place in each.lineage.trained_on for place in wanted)]


async def examples_of(connection: Connection, model: str, event: str) -> list[Trigger]:
    """Where the labelled examples of an event stand, corrections too. The event is an id or a place. Raises CommandError."""
    place = _place(event)
    if place is not None and place.topic == EXAMPLES:
        return [place]
    try:
        prediction_id = event if place is None else await _prediction_at(connection, place)
        found = await _on_kafka(connection, model, prediction_id)
        found += [each for each in await _in_archive(connection, model, prediction_id) if each not in found]
    except TailraceError as error:
        raise CommandError(str(error)) from None
    if not found:
        msg = (
            f"no labelled example of prediction {prediction_id!r} of model {model} is on the topic {EXAMPLES} or in the"
            " archive: it has no label yet, so nothing has learned from it"
        )
        raise CommandError(msg)
    return found


def _place(event: str) -> Trigger | None:
    found = _PLACE.fullmatch(event)
    if found is None:
        return None
    place = Trigger(topic=found["topic"], partition=int(found["partition"]), offset=int(found["offset"]))
    if place.topic != EXAMPLES and place.topic not in SOURCES:
        raise CommandError(f"no version learns from {place.topic}; name a place on {', '.join(SOURCES)} or {EXAMPLES}")
    return place


async def _prediction_at(connection: Connection, place: Trigger) -> str:
    here = LogRange(topic=place.topic, partition=place.partition, from_offset=place.offset, through_offset=place.offset)
    async for batch in read_ranges(connection.kafka, LogRanges.of(here), ObjectStore.from_url(connection.object_store)):
        for record in batch:
            named = _field(record.value, "prediction_id")
            if named is not None:
                return named
    raise CommandError(f"{here} is no event of a prediction")


async def _on_kafka(connection: Connection, model: str, prediction_id: str) -> list[Trigger]:
    found = []
    for each in await newest(connection.kafka, EXAMPLES):
        async with aclosing(read_kept(connection.kafka, each)) as batches:
            async for batch in batches:
                found += [
                    Trigger(topic=EXAMPLES, partition=each.partition, offset=record.offset)
                    for record in batch
                    if _is_of(record.value, model, prediction_id)
                ]
    return found


async def _in_archive(connection: Connection, model: str, prediction_id: str) -> list[Trigger]:
    objects = ObjectStore.from_url(connection.object_store)
    runs = [run for name in await objects.list(f"archive/{EXAMPLES}") if (run := archived_run(name)) is not None]
    found: list[Trigger] = []
    for run in runs:
        offsets = await asyncio.to_thread(_offsets, objects, run, model, prediction_id)
        found += [Trigger(topic=EXAMPLES, partition=run.partition, offset=offset) for offset in offsets]
    return found


def _offsets(objects: ObjectStore, run: LogRange, model: str, prediction_id: str) -> list[int]:
    return [offset for offset, value in _likely(objects, run, prediction_id) if _is_of(value, model, prediction_id)]


def _likely(objects: ObjectStore, run: LogRange, text: str) -> Iterator[tuple[int, bytes]]:
    """The records of a file that have this text somewhere in their value."""
    import pyarrow.compute as pc

    try:
        for table in ArchiveFile(objects, run).tables():
            likely = table.filter(pc.match_substring(table["value"], text))
            yield from zip(likely["offset"].to_pylist(), likely["value"].to_pylist(), strict=True)
    except ObjectMissing:
        return  # merged into a larger file since it was listed


def _is_of(value: bytes | None, model: str, prediction_id: str) -> bool:
    if value is None or prediction_id.encode() not in value:
        return False
    return _field(value, "prediction_id") == prediction_id and _field(value, "model") == model


def _field(value: bytes | None, name: str) -> str | None:
    try:
        document = json.loads(value or b"")
    except ValueError:
        return None
    found = document.get(name) if isinstance(document, dict) else None
    return found if isinstance(found, str) else None
