"""The newest replies on a topic, read back by a process that takes partitions of requests over."""

from __future__ import annotations

from tailrace_contracts.ranges import LogRange, LogRanges
from tailrace_runtime.errors import ConfigurationFault, RangeUnavailable, RetryLater
from tailrace_runtime.log import newest, read_ranges
from tailrace_runtime.settings import KafkaSettings
from tailrace_runtime.topics import wait_for


class RecentReplies:
    """Reads the end of reply topics. A request's reply stands in the partition of the same number."""

    def __init__(self, settings: KafkaSettings, requests_topic: str, most: int) -> None:
        self._settings = settings
        self._requests_topic = requests_topic
        self._most = most

    async def __call__(self, topic: str, partitions: set[int]) -> list[bytes]:
        """The values of the newest replies in each of these partitions, oldest first.

        Raises RetryLater when the broker is away, and ConfigurationFault where the topic has too few partitions.
        """
        counts = await wait_for(self._settings, [topic, self._requests_topic], part=f"replies on {topic}")
        if counts[topic] < counts[self._requests_topic]:
            raise ConfigurationFault(
                f"the reply topic {topic} has {counts[topic]} partitions, expected at least"
                f" {counts[self._requests_topic]}, as many as {self._requests_topic} has"
            )
        wanted = (each for each in await newest(self._settings, topic) if each.partition in partitions)
        ends = LogRanges(tuple(self._end_of(each) for each in wanted))
        try:
            return [
                record.value
                async for batch in read_ranges(self._settings, ends)
                for record in batch
                if record.value is not None
            ]
        except RangeUnavailable as gone:  # retention was faster
            raise RetryLater(str(gone)) from gone

    def _end_of(self, whole: LogRange) -> LogRange:
        start = max(whole.from_offset, whole.through_offset - self._most + 1)
        return whole.model_copy(update={"from_offset": start})
