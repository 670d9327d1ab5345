"""The registry's settings: what every service has, and its own port."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from tailrace_runtime.settings import ServiceSettings


class RegistrySettings(ServiceSettings):
    """Environment variables that begin with `TAILRACE_`; the database is required."""

    port: int = Field(default=8103, ge=0, le=65535, description="0: any free port")
    database_url: SecretStr = Field(description="a PostgreSQL URL with a schema of the registry's own")
    commands_token_file: Path | None = Field(
        default=None, description="names and tokens of those who may give commands over HTTP; none: nobody may"
    )
    command_seconds: float = Field(default=10, gt=0, description="for the broker to take a command given over HTTP")
