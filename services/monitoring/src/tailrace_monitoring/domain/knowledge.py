"""What monitoring knows of the other services, from their topics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tailrace_contracts.events import AlertKind, AlertRaised, DeploymentChanged, Mute, VersionChanged
from tailrace_contracts.spec import ModelSpec
from tailrace_monitoring.domain.comparison import Trial


@dataclass(frozen=True, slots=True)
class Knowledge:
    """One model as it stands now."""

    spec: ModelSpec
    spec_revision: int
    deployment: DeploymentChanged | None = None
    versions: Mapping[int, VersionChanged] = field(default_factory=dict)
    runs_over: frozenset[str] = frozenset()
    """Batch runs that finished or failed, or whose version is registered."""
    runs_finished: frozenset[str] = frozenset()
    """Batch runs that made a candidate, registered yet or not."""
    mutes: tuple[Mute, ...] = ()
    """Alerts that nobody wants to hear of for a while, as the registry announced them."""

    def mute_of(self, alert: AlertRaised) -> Mute | None:
        """The mute that covers an alert when it is raised; of several the one that ends last."""
        covering = [mute for mute in self.mutes if mute.covers(alert.kind, alert.subject, alert.time)]
        return max(covering, key=lambda mute: mute.until, default=None)

    def is_muted(self, kind: AlertKind, subject: str, moment: datetime) -> bool:
        """Whether an alert of this kind about this subject would be muted."""
        return any(mute.covers(kind, subject, moment) for mute in self.mutes)

    @property
    def champion(self) -> int | None:
        """The version that answers, if any."""
        return self.deployment.champion if self.deployment else None

    @property
    def sequence(self) -> int:
        """The deployment's number; 0 before the first."""
        return self.deployment.sequence if self.deployment else 0

    @property
    def candidates(self) -> dict[int, Trial]:
        """The versions on trial, with their stage."""
        if self.deployment is None:
            return {}
        found: dict[int, Trial] = dict.fromkeys(self.deployment.shadows, "shadow")
        if self.deployment.canary:
            found[self.deployment.canary.version] = "canary"
        return found

    @property
    def has_batch_version(self) -> bool:
        """Whether the batch learner has made a version already, or a candidate that is on its way to become one."""
        return bool(self.runs_finished) or any(not version.continual for version in self.versions.values())

    @property
    def batch_candidate_on_trial(self) -> bool:
        """Whether a version of the batch learner is in shadow or canary now."""
        known = (self.versions.get(number) for number in self.candidates)
        return any(version is not None and not version.continual for version in known)

    def is_continual(self, number: int) -> bool:
        """Whether this version goes on learning."""
        version = self.versions.get(number)
        return version is not None and version.continual

    @property
    def basis_name(self) -> str:
        """The name of what windows are measured against now; empty where there is nothing."""
        monitor = self.spec.monitors.drift
        if monitor is None:
            return ""
        if monitor.reference is not None:
            return f"{monitor.reference.start.isoformat()}..{monitor.reference.end.isoformat()}"
        version = self.versions.get(self.champion or 0)
        return f"version {version.version}" if version and version.reference else ""
