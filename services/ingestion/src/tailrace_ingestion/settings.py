"""What ingestion can be told from outside: `TAILRACE_` and the name in capitals."""

from __future__ import annotations

from pydantic import Field

from tailrace_runtime.settings import ServiceSettings


class IngestionSettings(ServiceSettings):
    """The settings of the ingestion service."""

    port: int = Field(default=8101, ge=0, le=65535, description="0: any free port")
    max_body_bytes: int = Field(default=1_048_576, gt=0, description="a larger request is refused with 413")
    max_events: int = Field(default=1_000, gt=0, description="events of one request")
    body_seconds: float = Field(default=10, gt=0, description="for a body to come to its end before a 408")
    max_buffered_bytes: int = Field(default=67_108_864, gt=0, description="bodies of all requests before a 429")
    max_pending_events: int = Field(default=40_000, gt=0, description="events waiting for the broker before a 429")
    max_pending_events_per_client: int = Field(default=20_000, gt=0, description="of these, events of one address")
    acknowledge_seconds: float = Field(default=10, gt=0, description="to wait for the broker before a 503")
    partial_seconds: float = Field(default=0.5, gt=0, description="between two publications of partials")
    max_waiting_rows: int = Field(default=8_192, gt=0, description="events that wait for a fold, in each partition")
    spec_refresh_seconds: float = Field(default=1, gt=0, description="between two looks for an unknown model's spec")
    invalid_share_limit: float = Field(
        default=1, gt=0, le=1, description="validate stops when a larger share of events is invalid; 1: never"
    )
    window_seconds: float = Field(default=0.2, gt=0, description="between two publications of an open window")
    idle_source_seconds: float = Field(
        default=60, gt=0, description="a source partition silent for longer does not hold windows open"
    )
    gone_source_seconds: float = Field(
        default=86_400, gt=0, description="closed windows are kept for a source partition silent for less"
    )
    coverage_seconds: float = Field(default=5, gt=0, description="between two publications of label coverage")
    archive_seconds: float = Field(default=30, gt=0, description="before a file is written, however small")
    archive_max_bytes: int = Field(default=8_388_608, gt=0, description="a file is written when it holds as much")
    archive_target_bytes: int = Field(
        default=67_108_864, gt=0, description="small files are merged into larger ones up to this size"
    )
    archive_merge_files: int = Field(default=8, gt=1, description="that many small files are worth a merge")
