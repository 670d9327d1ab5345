"""Dead letters: what could not be handled, whole, and how it goes back.

A dead letter is named `<topic>/<partition>/<offset>` after the record that it holds. Replaying one publishes its original
bytes and key on its topic again. Replaying twice changes nothing in the loop: predictions and labels are joined once, by
their ids.
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from tailrace_cli.connection import CommandError, Connection
from tailrace_client import AsyncPublisher
from tailrace_contracts.events import EventParked, decode

TOPIC = "dead-letters"


@dataclass(frozen=True)
class Filter:
    """Which dead letters are meant; an empty field means any."""

    topic: str = ""
    code: str = ""
    model: str = ""
    name: str = ""

    def admits(self, letter: EventParked) -> bool:
        """Whether this one is meant."""
        return (
            (not self.topic or letter.topic == self.topic)
            and (not self.code or letter.code == self.code)
            and (not self.model or letter.model == self.model)
            and (not self.name or name(letter) == self.name)
        )


def name(letter: EventParked) -> str:
    """`<topic>/<partition>/<offset>` of the record that could not be handled."""
    return f"{letter.topic}/{letter.partition}/{letter.offset}"


async def read(connection: Connection, wanted: Filter) -> list[EventParked]:
    """The dead letters that stand on the topic now, oldest first, one for each record. Raises CommandError."""
    consumer = AIOKafkaConsumer(
        connection.topic_prefix + TOPIC,
        bootstrap_servers=connection.bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    found: dict[str, EventParked] = {}
    try:
        await consumer.start()
        ends = await consumer.end_offsets(consumer.assignment())
        left = {each: end for each, end in ends.items() if end > await consumer.position(each)}
        while left:
            for partition, records in (await consumer.getmany(timeout_ms=200)).items():
                letters = [decode(record.value) for record in records if record.value is not None]
                found.update({name(each): each for each in letters if isinstance(each, EventParked)})
                if partition in left and records[-1].offset + 1 >= left[partition]:
                    del left[partition]
    except KafkaError as error:
        msg = f"no Kafka broker answers at {connection.bootstrap} ({error}); is Tailrace up? (`tailrace status`)"
        raise CommandError(msg) from None
    finally:
        await consumer.stop()
    return sorted((each for each in found.values() if wanted.admits(each)), key=lambda each: each.time)


async def one(connection: Connection, record: str) -> EventParked:
    """The dead letter of this name. Raises CommandError when there is none."""
    found = await read(connection, Filter(name=record))
    if not found:
        msg = f"no dead letter {record}; `tailrace dead-letters list` names them"
        raise CommandError(msg)
    return found[0]


def distinct(letters: list[EventParked]) -> list[EventParked]:
    """Each original record once, its newest letter: one that was replayed in vain stands there several times."""
    return list({(letter.topic, letter.key, letter.value): letter for letter in letters}.values())


async def replay(connection: Connection, letters: list[EventParked]) -> int:
    """Publish the original records again, and wait until the broker has them. Returns how many."""
    async with AsyncPublisher(
        connection.bootstrap, topic_prefix=connection.topic_prefix, source="/cli/replay"
    ) as publisher:
        for letter in letters:
            headers = tuple((header, b64decode(value)) for header, value in letter.headers)
            key = b64decode(letter.key).decode(errors="replace") if letter.key is not None else ""
            await publisher.publish_bytes(letter.topic, key, b64decode(letter.value or ""), headers)
    return len(letters)


def text(value: str | None) -> str:
    """A dead letter's bytes as text for a person; what is no text stays base64."""
    if value is None:
        return ""
    raw = b64decode(value)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return f"(base64) {value}"
