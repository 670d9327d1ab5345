"""Where a consumer group reads on, set from outside of it: for a service whose state went back in time."""

from __future__ import annotations

from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError

from tailrace_contracts.ranges import Log
from tailrace_runtime.errors import RetryLater
from tailrace_runtime.kafka import UNREACHABLE, close, connection, unreachable
from tailrace_runtime.settings import KafkaSettings

_OCCUPIED = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)


async def read_from(settings: KafkaSettings, group: str, offsets: Mapping[Log, int]) -> None:
    """Commit these offsets as the next that the group reads. Nobody may be in it.

    Raises:
        RetryLater: the group has members (a killed one stays for ten seconds), or Kafka is away.
    """
    consumer = AIOKafkaConsumer(**connection(settings), group_id=group, enable_auto_commit=False)
    places = {TopicPartition(settings.topic(log.topic), log.partition): offset for log, offset in offsets.items()}
    try:
        await consumer.start()
        consumer.assign(list(places))
        await consumer.commit(places)
    except _OCCUPIED as error:
        reason = f"the consumer group {group} has members: stop every other process of it; one that was killed is missed in 10 s"
        raise RetryLater(reason, 1.0) from error
    except UNREACHABLE as error:
        raise RetryLater(f"{unreachable(settings)}: {error!r}", 1.0) from error
    finally:
        await close(consumer)
