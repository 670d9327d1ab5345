"""The audit chain, as it stands on its topic: to be listed, checked, and handed to an outsider."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from tailrace_cli.connection import CommandError, Connection
from tailrace_contracts.audit import ExportInvalid, Verification, each_once, export, verify_chain, verify_export
from tailrace_contracts.events import AuditRecorded

TOPIC = "audit-entries"
EVER = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


async def chain(connection: Connection) -> list[bytes]:
    """Every entry on the topic now, oldest first, each once. Raises CommandError."""
    consumer = AIOKafkaConsumer(
        connection.topic_prefix + TOPIC,
        bootstrap_servers=connection.bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    found: list[bytes] = []
    try:
        await consumer.start()
        ends = await consumer.end_offsets(consumer.assignment())
        while any([await consumer.position(each) < end for each, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [record.value for record in records if record.value is not None]
    except KafkaError as error:
        msg = f"no Kafka broker answers at {connection.bootstrap} ({error}); is Tailrace up? (`tailrace status`)"
        raise CommandError(msg) from None
    finally:
        await consumer.stop()
    return each_once(found)


async def of_model(connection: Connection, model: str) -> list[AuditRecorded]:
    """The entries of one model, oldest first. Raises CommandError for a model of which there are none."""
    entries = [AuditRecorded.model_validate_json(value) for value in await chain(connection)]
    found = [entry for entry in entries if entry.model == model]
    if not found:
        raise CommandError(
            f"nothing was ever recorded of a model {model}; `tailrace models` names those that there are"
        )
    return found


async def verified(connection: Connection) -> Verification:
    """Whether the chain on the topic is whole."""
    return verify_chain(await chain(connection))


def verified_file(path: Path) -> Verification:
    """Whether an exported file is whole. Raises CommandError for a file that cannot be read or is none."""
    try:
        return verify_export(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: cannot be read ({error}); name a file of `tailrace audit export`") from None
    except ExportInvalid as error:
        raise CommandError(f"{path}: {error}") from None


async def exported(
    connection: Connection, model: str, since: datetime | None, until: datetime | None
) -> tuple[list[str], Verification]:
    """The lines of an export, which have been checked. Raises CommandError where there is nothing, or a broken chain."""
    values = await chain(connection)
    whole = verify_chain(values)
    if not whole.intact:
        raise CommandError(f"the chain is broken and nothing of it is exported: {whole.reason}")
    lines = list(export(values, model, _moment(since, EVER[0]), _moment(until, EVER[1])))
    if len(lines) == 1:
        raise CommandError(
            f"there is no audit entry of a model {model} in that time; see `tailrace audit list {model}`"
        )
    return lines, verify_export(lines)


def _moment(given: datetime | None, default: datetime) -> datetime:
    """A time without a zone, as typed, is in UTC."""
    moment = given or default
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
