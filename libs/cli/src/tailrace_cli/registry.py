"""Commands to the registry: one event on `registry-commands`, one answer in the audit chain.

A command is answered by the audit entry that carries its id: done, or refused with the reason. The answer is read from
the topic's end as it was before the command was sent, so it cannot be missed.
"""

from __future__ import annotations

import getpass
from datetime import UTC, datetime

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from tailrace_cli.connection import CommandError, Connection
from tailrace_client import AsyncPublisher
from tailrace_contracts.events import AuditRecorded, Command, CommandIssued, decode
from tailrace_runtime.ids import new_id

ANSWER_SECONDS = 30.0


async def tail(connection: Connection, *topics: str) -> AIOKafkaConsumer:
    """A started consumer that stands at the present end of these topics (catalogue names)."""
    names = [connection.topic_prefix + topic for topic in topics]
    consumer = AIOKafkaConsumer(
        *names, bootstrap_servers=connection.bootstrap, enable_auto_commit=False, fetch_max_wait_ms=100
    )
    try:
        await consumer.start()
        for partition, end in (await consumer.end_offsets(consumer.assignment())).items():
            consumer.seek(partition, end)
    except KafkaError as error:
        await consumer.stop()
        msg = f"no Kafka broker answers at {connection.bootstrap} ({error}); is Tailrace up? (`tailrace status`)"
        raise CommandError(msg) from None
    return consumer


async def issue(connection: Connection, model: str, command: Command, reason: str = "") -> AuditRecorded:
    """Send a command and wait for its answer. Raises CommandError when it is refused or nobody answers."""
    issued = CommandIssued(
        command_id=new_id(),
        model=model,
        command=command,
        issued_by=getpass.getuser(),
        reason=reason,
        time=datetime.now(UTC),
    )
    answers = await tail(connection, "audit-entries")
    try:
        async with AsyncPublisher(
            connection.bootstrap, topic_prefix=connection.topic_prefix, source="/cli"
        ) as publisher:
            await publisher.publish("registry-commands", model, issued)
        answer = await _answer(answers, issued.command_id)
    finally:
        await answers.stop()
    if answer.outcome == "refused":
        raise CommandError(answer.reason)
    return answer


def outcome(answer: AuditRecorded) -> str:
    """What an answer says to a person, in one sentence."""
    return f"{answer.outcome}: {answer.reason or f'{answer.action} of {answer.subject} of {answer.model}'}"


async def _answer(consumer: AIOKafkaConsumer, command_id: str) -> AuditRecorded:
    deadline = datetime.now(UTC).timestamp() + ANSWER_SECONDS
    while datetime.now(UTC).timestamp() < deadline:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            for record in records:
                entry = decode(record.value)
                if isinstance(entry, AuditRecorded) and entry.command_id == command_id:
                    return entry
    msg = f"the registry has not answered within {ANSWER_SECONDS:.0f} s; is it running? (`tailrace status`)"
    raise CommandError(msg)
