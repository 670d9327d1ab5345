"""`tailrace explanation`: a recorded decision and its reasons, from Kafka or from the archive, for a person."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tailrace_cli.connection import CommandError, Connection
from tailrace_cli.explanations import lines, recorded, told
from tailrace_contracts.events import ArmOutput, Explanation, PredictionMade
from tailrace_contracts.ranges import LogRange
from tailrace_runtime.archive import archive_key, to_parquet
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Record, outgoing
from tailrace_testing import Broker


def decision(prediction_id: str) -> PredictionMade:
    """A prediction with its reasons."""
    return PredictionMade(
        prediction_id=prediction_id,
        model="rain",
        time=datetime(2026, 5, 4, tzinfo=UTC),
        features={"humidity": 40.0, "sky": "clouded"},
        served=ArmOutput(arm="champion", prediction=1, probability=0.75, version=7),
        explanation=Explanation(
            method="sampling-shapley",
            scale="probability",
            base_value=0.25,
            output=0.75,
            contributions={"humidity": -0.1, "sky": 0.6},
            standard_errors={"humidity": 0.01, "sky": 0.02},
            permutations=200,
            seed=11,
            reference_rows=100,
            reference_sha256="ab" * 32,
        ),
    )


async def test_a_decision_is_found_on_kafka_and_in_the_archive(kafka: Broker, tmp_path: Path) -> None:
    """If it failed, nobody could say why a decision was taken, once Kafka has forgotten it or before."""
    prefix = kafka.unique("why") + "-"
    await kafka.create_topic(prefix + "predictions", partitions=3)
    connection = Connection(kafka.bootstrap, prefix, "", "", tmp_path.as_uri())
    producer = Producer(connection.kafka)
    await producer.start()
    await producer.send_all(
        [outgoing(decision(f"new-{number}"), "predictions", f"new-{number}") for number in range(9)]
    )
    await producer.stop()
    held = LogRange(topic="predictions", partition=2, from_offset=0, through_offset=8)
    old = [decision(f"old-{number}") for number in range(9)]
    records = [Record(*held.log, at, 0, each.prediction_id.encode(), each.encode(), ()) for at, each in enumerate(old)]
    await ObjectStore.from_url(connection.object_store).put(archive_key(held), to_parquet(records))
    assert await recorded(connection, "new-4") == decision("new-4")
    assert await recorded(connection, "old-8") == decision("old-8")
    with pytest.raises(
        CommandError, match="prediction 'nobody' is neither on the topic predictions nor in the archive"
    ):
        await recorded(connection, "nobody")


def test_reasons_are_told_the_largest_first() -> None:
    """If it failed, a person would read the reasons in an order that says nothing, or not what they are of."""
    event = decision("p")
    assert event.explanation is not None
    assert [(row["feature"], row["value"], row["contribution"]) for row in lines(event)] == [
        ("sky", "clouded", 0.6),
        ("humidity", 40.0, -0.1),
    ]
    assert told(event.explanation) == (
        "probability: base value 0.25 and the contributions below come to 0.75; sampled over 200 permutations with"
        " seed 11, against 100 reference rows of abababababab"
    )
    exact = event.explanation.model_copy(update={"permutations": 0, "standard_errors": {}})
    assert "; exact, against" in told(exact)
    assert lines(event.model_copy(update={"explanation": None}))[0] == {"feature": "humidity", "value": 40.0}
