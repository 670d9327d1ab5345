"""What the topics say now: specs, versions and deployments, read to their ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tailrace_cli.connection import Connection
from tailrace_contracts.coverage import Coverage, coverage_of
from tailrace_contracts.events import CoverageMeasured, DeploymentChanged, Event, SpecApplied, VersionChanged
from tailrace_runtime.follower import Follower
from tailrace_runtime.records import Record


@dataclass
class Known:
    """The newest facts of each model."""

    specs: dict[str, SpecApplied] = field(default_factory=dict)
    versions: dict[str, dict[int, VersionChanged]] = field(default_factory=dict)
    deployments: dict[str, DeploymentChanged] = field(default_factory=dict)

    def apply(self, event: Event | None, record: Record) -> None:
        """Take in one event; others than these three kinds are none of ours."""
        del record
        match event:
            case SpecApplied():
                self.specs[event.model] = event
            case VersionChanged():
                self.versions.setdefault(event.model, {})[event.version] = event
            case DeploymentChanged():
                self.deployments[event.model] = event
            case _:
                pass

    def role(self, version: VersionChanged) -> str:
        """The version's stage, with its share of the traffic where it has one."""
        deployment = self.deployments.get(version.model)
        if deployment and deployment.canary and deployment.canary.version == version.version:
            return f"canary {deployment.canary.percent} %"
        return version.stage


async def coverage(connection: Connection, model: str) -> list[Coverage]:
    """How many predictions of each of the model's windows have a label so far, oldest window first."""
    found: list[CoverageMeasured] = []

    def apply(event: Event | None, record: Record) -> None:
        del record
        if isinstance(event, CoverageMeasured) and event.model == model:
            found.append(event)

    follower = Follower(connection.kafka, "label-coverage", apply)
    try:
        await follower.start()
    finally:
        await follower.stop()
    return coverage_of(found)


async def known(connection: Connection) -> Known:
    """All specs, versions and deployments as they now stand on the topics."""
    facts = Known()
    followers = [
        Follower(connection.kafka, topic, facts.apply) for topic in ("model-specs", "model-versions", "deployments")
    ]
    try:
        await asyncio.gather(*(follower.start() for follower in followers))
    finally:
        await asyncio.gather(*(follower.stop() for follower in followers))
    return facts
