"""The settings that every service has. A service's own `settings.py` subclasses `ServiceSettings`.

Each is an environment variable: `TAILRACE_` and the name in capitals. Units stand in the names. Where TAILRACE_SECRETS_DIR
names a folder, a file `tailrace_<name>` in it is read for what the environment does not say.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from tailrace_runtime.errors import ConfigurationFault


class KafkaSettings(BaseSettings):
    """How to reach the broker, and how patient to be with it."""

    model_config = SettingsConfigDict(env_prefix="TAILRACE_", frozen=True, extra="ignore")

    kafka_bootstrap: str = "127.0.0.1:9092"
    topic_prefix: str = Field(default="", description="put before every topic and consumer group of this deployment")
    replication_factor: int = Field(default=1, ge=1, description="of topics that are created; 3 outside development")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_username: str | None = None
    kafka_password: SecretStr | None = None
    kafka_ca_file: Path | None = None
    delivery_timeout_seconds: float = Field(default=60, gt=0, description="after it an unacknowledged send has failed")
    request_timeout_seconds: float = Field(default=20, gt=0)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then files of secrets."""
        del dotenv_settings, file_secret_settings
        folder = os.environ.get("TAILRACE_SECRETS_DIR")
        files = (SecretsSettingsSource(settings_cls, secrets_dir=folder),) if folder else ()
        return (init_settings, env_settings, *files)

    def topic(self, name: str) -> str:
        """The catalogue's topic as it is called on the broker."""
        return self.topic_prefix + name

    def name(self, topic: str) -> str:
        """The broker's topic as the catalogue calls it."""
        return topic.removeprefix(self.topic_prefix)


class ServiceSettings(KafkaSettings):
    """What a service needs to know to run."""

    database_url: SecretStr | None = None
    object_store: str = Field(default="file:///var/lib/tailrace/objects", description="file, s3, gs, az or memory URL")
    state_dir: Path = Path("/var/lib/tailrace/state")
    signing_key_file: Path | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8100, ge=0, le=65535, description="0: any free port")
    roles: Annotated[tuple[str, ...], NoDecode] = Field(default=(), description="comma separated; empty: all")
    instance: str = Field(default="0", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="differs between processes")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    stall_seconds: float = Field(default=60, gt=0, description="a batch in hand for longer makes /livez say 503")
    retry_limit_seconds: float = Field(default=600, gt=0, description="a batch retried for longer stops its partition")
    drain_seconds: float = Field(default=0, ge=0, description="unready but still answering, after SIGTERM")
    shutdown_seconds: float = Field(default=15, gt=0, description="for work in hand to finish after SIGTERM")

    @field_validator("roles", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """`validate,join` as two names."""
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    def signing_key(self) -> bytes:
        """The key that artefacts with executable state are signed with. Raises ConfigurationFault without a usable one."""
        path = self.signing_key_file
        if path is None:
            raise ConfigurationFault(
                "TAILRACE_SIGNING_KEY_FILE is not set: name the file with the key that training and serving share"
            )
        try:
            key = path.read_bytes().strip()
        except OSError as error:
            raise ConfigurationFault(
                f"the signing key {path} (TAILRACE_SIGNING_KEY_FILE) cannot be read: {error.strerror}"
            ) from error
        if not key:
            raise ConfigurationFault(f"the signing key {path} is empty; expected at least 32 random bytes")
        return key
