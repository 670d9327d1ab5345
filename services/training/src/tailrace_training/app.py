"""How the service is put together.

Started in this order, and stopped in the reverse: producer, followers, trainer; then the roles. The trainer process
itself starts with the first training.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from tailrace_runtime.clock import Clock, SystemClock
from tailrace_runtime.consumer import ConsumerRole, Outcome
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.records import Record
from tailrace_runtime.service import Service
from tailrace_training.adapters.followed import FollowedCheckpoints, FollowedSpecs, FollowedVersions
from tailrace_training.adapters.kafka_examples import KafkaExampleLogs
from tailrace_training.adapters.river_runs import RiverRuns
from tailrace_training.adapters.stored import StoredRunFiles
from tailrace_training.adapters.trainer_process import TrainerProcess
from tailrace_training.consumers import BatchRole, OnlineRole, TopicsOut
from tailrace_training.handlers import Online
from tailrace_training.settings import TrainingSettings
from tailrace_training.trainings import Batch

Roles = Mapping[str, tuple[str, Callable[[Any, Sequence[Record]], Awaitable[Outcome]]]]
"""For each role its topic in, and the method of its state that handles a batch."""

ONLINE_TICK_SECONDS = 0.1
BATCH_TICK_SECONDS = 0.1
ONLINE_BATCH = 500
"""Records learned at a time: the slowest learner takes a second for as many."""


def create_service(
    roles: Roles, topics_out: TopicsOut, settings: TrainingSettings | None = None, *, clock: Clock | None = None
) -> Service:
    """The service, ready to run. Raises ConfigurationFault."""
    settings = settings or TrainingSettings()
    clock = clock or SystemClock()
    objects = ObjectStore.from_url(settings.object_store)
    specs = FollowedSpecs(settings)
    checkpoints = FollowedCheckpoints(settings)
    trainer = TrainerProcess(settings.state_dir / "trainer", settings.trainer_idle_seconds)
    code_version = version("tailrace-training")
    versions = FollowedVersions(settings)
    online = OnlineRole(
        Online(
            specs=specs,
            checkpoints=checkpoints,
            artefacts=objects,
            learners=RiverRuns(settings.signing_key()),
            versions=versions,
            code_version=code_version,
            kept_revisions=settings.kept_revisions,
        ),
        topics_out,
        clock,
    )
    batch = BatchRole(
        Batch(
            specs=specs,
            logs=KafkaExampleLogs(settings, objects, roles["online"][0]),
            artefacts=objects,
            files=StoredRunFiles(objects),
            trainer=trainer,
            clock=clock,
            code_version=code_version,
            threads=settings.trainer_threads,
            device=settings.trainer_device,
            checkpoint_seconds=settings.trainer_checkpoint_seconds,
        ),
        topics_out,
        settings.progress_seconds,
        settings.retry_limit_seconds,
    )
    return Service(
        "training",
        settings,
        {
            "online": _role("online", roles, online, max_records=ONLINE_BATCH, tick_seconds=ONLINE_TICK_SECONDS),
            "batch": _role("batch", roles, batch, max_records=10, tick_seconds=BATCH_TICK_SECONDS),
        },
        resources=[specs.follower, checkpoints.follower, versions.follower, trainer],
        clock=clock,
    )


def _role(
    name: str, roles: Roles, state: OnlineRole | BatchRole, *, max_records: int, tick_seconds: float
) -> ConsumerRole:
    topic, method = roles[name]

    async def handle(records: Sequence[Record]) -> Outcome:
        return await method(state, records)

    return ConsumerRole(name, {topic: handle}, state, tick_seconds=tick_seconds, max_records=max_records)
