"""What the training service can be told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tailrace_runtime.settings import ServiceSettings


class TrainingSettings(ServiceSettings):
    """Settings of the training service, each an environment variable `TAILRACE_<NAME>`."""

    port: int = Field(default=8102, ge=0, le=65535, description="0: any free port")
    trainer_threads: int = Field(default=1, ge=1, description="CPU threads of one batch training")
    trainer_device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: a GPU where there is one")
    trainer_idle_seconds: float = Field(default=30, ge=0, description="how long an idle trainer keeps torch in memory")
    trainer_checkpoint_seconds: float = Field(default=2, ge=0, description="at least this long between two checkpoints")
    progress_seconds: float = Field(default=0.5, ge=0, description="at least this long between two training events")
    kept_revisions: int = Field(
        default=20, ge=1, description="superseded artefacts of an online run that are kept behind the one in use"
    )
