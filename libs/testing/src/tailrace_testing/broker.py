"""A Kafka for tests: topics and unique names on whatever broker the session has, or on one that a test may stop."""

import uuid
from collections.abc import Mapping

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code

from tailrace_local import EmbeddedKafka
from tailrace_testing.polling import eventually


class Broker:
    """A running Kafka that tests share; `bootstrap` is where clients connect."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    @property
    def bootstrap(self) -> str:
        """`host:port`, or several with commas."""
        return self._bootstrap

    def unique(self, name: str) -> str:
        """A name that no other test has, for topics, prefixes and groups."""
        return f"{name}-{uuid.uuid4().hex[:10]}"

    async def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Creates a topic and waits until every partition has a leader; returns its name.

        Args:
            name: of the topic; a test's own, see `unique`.
            partitions: how many.
            config: topic settings, such as `{"cleanup.policy": "compact"}`.

        Raises:
            aiokafka.errors.KafkaError: the broker refused, for example because the topic exists.
        """
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            topic = NewTopic(name, num_partitions=partitions, replication_factor=1, topic_configs=dict(config or {}))
            answer = await admin.create_topics([topic])
            for _, code, *rest in answer.topic_errors:
                if code:
                    raise for_code(code)(*rest)

            async def has_leaders() -> bool:
                (found,) = await admin.describe_topics([name])
                leaders = [partition["leader"] for partition in found["partitions"]]
                return len(leaders) == partitions and min(leaders) >= 0

            await eventually(has_leaders)
        finally:
            await admin.close()
        return name


class OwnBroker(Broker):
    """A broker that one test has for itself and may stop, kill and start again; port and data stay."""

    def __init__(self, kafka: EmbeddedKafka) -> None:
        super().__init__(kafka.bootstrap)
        self.kafka = kafka

    def start(self) -> None:
        """Starts it again and waits until it serves (about 2 s; 5 s after a kill)."""
        self.kafka.start()

    def stop(self) -> None:
        """Stops it cleanly."""
        self.kafka.stop()

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self.kafka.kill()
