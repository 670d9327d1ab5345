"""Monitoring's settings."""

from __future__ import annotations

from tailrace_runtime.settings import ServiceSettings


class MonitoringSettings(ServiceSettings):
    """What every service has, with monitoring's port."""

    port: int = 8105
