"""`tailrace lineage`: from a version to its origin, and from an event to the versions that learned from it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer

from tailrace_cli.commands.options import _said
from tailrace_cli.connection import CommandError, Connection
from tailrace_cli.lineage import EXAMPLES, examples_of, names, that_saw, version
from tailrace_cli.state import Known
from tailrace_contracts.events import (
    ArmOutput,
    ClaimCheck,
    DeploymentChanged,
    ExampleLabelled,
    Lineage,
    PredictionMade,
    VersionChanged,
)
from tailrace_contracts.ranges import LogRange, LogRanges, Trigger
from tailrace_runtime.archive import archive_key, to_parquet
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Record, outgoing
from tailrace_testing import Broker

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def example(prediction_id: str, revision: int = 0) -> ExampleLabelled:
    """A labelled example."""
    return ExampleLabelled(
        prediction_id=prediction_id,
        model="rain",
        time=NOON,
        label_time=NOON,
        features={"humidity": 40.0, "also": "p-1"},
        label=1,
        label_revision=revision,
        served=ArmOutput(arm="champion", prediction=1, version=1),
        trigger=Trigger(topic="labels", partition=0, offset=0),
        derived_from=LogRanges(),
    )


def prediction(prediction_id: str) -> PredictionMade:
    """The prediction before its label."""
    return PredictionMade(prediction_id=prediction_id, model="rain", time=NOON, features={"humidity": 40.0})


def made(number: int, first: int, last: int, partition: int = 0) -> VersionChanged:
    """A version that learned from these offsets."""
    learned = LogRange(topic=EXAMPLES, partition=partition, from_offset=first, through_offset=last)
    return VersionChanged(
        model="rain",
        version=number,
        stage="retired",
        run_id=f"run-{number}",
        learner="torch",
        continual=False,
        artefact=ClaimCheck(key="sha256/" + "a" * 64, sha256="a" * 64, size_bytes=1, media_type="x"),
        lineage=Lineage(trained_on=LogRanges.of(learned), examples=1, spec_revision=1, code_version="1"),
        time=NOON,
    )


async def test_an_event_is_followed_to_its_examples(kafka: Broker, tmp_path: Path) -> None:
    """Whoever asks to be forgotten could not be told which versions learned from them."""
    prefix = kafka.unique("saw") + "-"
    for topic in ("predictions", EXAMPLES):
        await kafka.create_topic(prefix + topic, partitions=1)
    connection = Connection(kafka.bootstrap, prefix, "", "", tmp_path.as_uri())
    producer = Producer(connection.kafka)
    await producer.start()
    await producer.send_all([outgoing(prediction(f"p-{n}"), "predictions", f"p-{n}") for n in range(4)])
    examples = [example("p-0"), example("p-2"), example("p-2", 1)]
    await producer.send_all([outgoing(each, EXAMPLES, "rain") for each in examples])
    await producer.stop()
    held = LogRange(topic=EXAMPLES, partition=7, from_offset=5, through_offset=6)
    old = [example("old-1"), example("old-2")]
    records = [Record(*held.log, 5 + at, 0, b"rain", each.encode(), ()) for at, each in enumerate(old)]
    await ObjectStore.from_url(connection.object_store).put(archive_key(held), to_parquet(records))

    async def found(event: str) -> list[str]:
        return [f"{each.partition}@{each.offset}" for each in await examples_of(connection, "rain", event)]

    assert await found("p-2") == ["0@1", "0@2"]
    assert await found("predictions[0]@2") == ["0@1", "0@2"]
    assert await found("old-2") == ["7@6"]
    assert await found("labelled-examples[3]@12") == ["3@12"]
    for event, why in (
        ("p-1", "it has no label yet, so nothing has learned from it"),
        ("predictions[0]@1", "no labelled example of prediction 'p-1'"),
        ("alerts[0]@1", "no version learns from alerts"),
        ("predictions[0]@99", "beyond"),
    ):
        with pytest.raises(CommandError, match=why):
            await examples_of(connection, "rain", event)
    with pytest.raises(CommandError, match="of model snow"):
        await examples_of(connection, "snow", "p-2")


def test_versions_that_saw_a_record() -> None:
    """A version that learned from somebody's data would be left out, or another one accused."""
    facts = Known(versions={"rain": {number: made(number, 10 * number, 10 * number + 19) for number in (1, 2, 3)}})
    facts.versions["rain"][4] = made(4, 0, 99, partition=1)

    def saw(*offsets: int) -> list[int]:
        places = [Trigger(topic=EXAMPLES, partition=0, offset=offset) for offset in offsets]
        return [each.version for each in that_saw(facts, "rain", places)]

    assert (saw(9), saw(10), saw(25), saw(10, 49)) == ([], [1], [1, 2], [1, 3])
    assert that_saw(facts, "snow", []) == []


def test_a_version_is_found_by_its_name() -> None:
    """`tailrace promote MODEL latest` would promote another version, or none."""
    deployed = DeploymentChanged(
        model="rain",
        sequence=1,
        spec_revision=1,
        champion=1,
        shadows=(2, 3),
        standby=3,
        aliases={"approved": 2},
        reason="x",
        time=NOON,
    )
    facts = Known(versions={"rain": {n: made(n, 0, 9) for n in (1, 2, 3)}}, deployments={"rain": deployed})
    assert names(facts, "rain") == {"champion": 1, "shadow": 2, "standby": 3, "latest": 3, "approved": 2}
    assert [version(facts, "rain", named).version for named in ("2", "champion", "latest", "approved")] == [2, 1, 3, 2]
    with pytest.raises(
        CommandError, match="is called canary; its names are approved, champion, latest, shadow, standby"
    ):
        version(facts, "rain", "canary")
    with pytest.raises(CommandError, match="rain has no version 9"):
        version(facts, "rain", "9")


def test_a_blank_reason_is_none() -> None:
    """A decision would stand in the audit log with nothing that says why."""
    assert _said("reviewed") == "reviewed"
    with pytest.raises(typer.BadParameter, match="say why"):
        _said("  ")
