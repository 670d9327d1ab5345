"""Publish predictions and labels from a Python program, and ask models over Kafka (`InferenceClient`).

    from datetime import UTC, datetime
    from tailrace_client import Publisher

    with Publisher("127.0.0.1:9092") as publisher:
        question = publisher.prediction(
            model="rain",
            features={"temperature": 11.5, "wind": "fresh"},
            prediction=1,
            probability=0.81,
        )
        # … later, when the truth is known:
        publisher.label(question, model="rain", label=1)

`Publisher` is for ordinary programs; `AsyncPublisher` has the same verbs as coroutines. Both hand an event to Kafka with
`acks=all` and an idempotent producer, and `flush` (or leaving the `with` block) returns when the broker has all of them.
"""

from tailrace_client.inference import InferenceClient, InferenceError, InferenceRefused, NoReply
from tailrace_client.publisher import AsyncPublisher, Publisher, PublishError

__all__ = [
    "AsyncPublisher",
    "InferenceClient",
    "InferenceError",
    "InferenceRefused",
    "NoReply",
    "PublishError",
    "Publisher",
]
