"""Settings that server and worker share, read from the environment once per process."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ripple_core.contract.addresses import AllowList
from ripple_core.logs import LogFormat

DAY_SECONDS = 24 * 3600


class SharedSettings(BaseSettings):
    """Environment variables `RIPPLE_*`, and `REDIS_URL`."""

    model_config = SettingsConfigDict(
        env_prefix="RIPPLE_", env_file=None, env_ignore_empty=True, extra="ignore", frozen=True
    )

    redis_url: str | None = Field(
        None,
        validation_alias=AliasChoices("redis_url", "REDIS_URL", "RIPPLE_REDIS_URL"),
        description="Redis to use; without it one is embedded, with its data under the data folder.",
    )
    data_dir: Path = Field(Path("ripple-data"), description="Videos, and the embedded Redis's data.")
    store_url: str | None = Field(
        None,
        pattern="^s3://[^/]+",
        description="s3://bucket/prefix to keep videos in, instead of the data folder; AWS_* variables say how.",
    )
    model: str = Field("builtin", description="builtin, a name of `ripple models`, or a diffusers pipeline folder.")
    models_file: Path | None = Field(
        None, description="TOML file of several models and how they are loaded; replaces `model`."
    )
    lora_dir: Path | None = Field(None, description="Folder of the .safetensors files that requests may name as LoRAs.")
    video_ttl_seconds: int = Field(7 * DAY_SECONDS, ge=60, description="How long finished videos are kept.")
    job_ttl_seconds: int = Field(30 * DAY_SECONDS, ge=60, description="How long records of ended jobs are kept.")
    disk_quota_bytes: int | None = Field(
        None, ge=1, description="Most bytes of finished videos; the oldest go first. Unlimited by default."
    )
    webhook_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Hosts and networks (CIDR), separated by commas, that webhooks may reach though not public."
    )
    public_url: str | None = Field(
        None, pattern="^https?://[^/]", description="Where clients reach the API, for links in webhooks."
    )
    link_seconds: int = Field(DAY_SECONDS, ge=60, description="How long signed video links hold.")
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port at which this process's metrics can be scraped without a key; none by default. Where one "
        "command starts several processes, the next ones take the ports that follow.",
    )
    metrics_host: str = Field("127.0.0.1", description="Address that port is opened on.")
    log_format: LogFormat = Field("console", description="console for people, json for programs.")
    log_prompts: bool = Field(False, description="Log the prompt of each accepted job.")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severe level logged.")

    @field_validator("store_url")
    @classmethod
    def _check_s3(cls, value: str | None) -> str | None:
        if value is not None and find_spec("s3fs") is None:
            raise ValueError("videos in S3 need the package's extra `s3`: pip install 'timeripple[s3]'")
        return value

    @field_validator("webhook_allow", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        entries = split_commas(value)
        # Refuses to start on a network that is none.
        AllowList.of(entries)
        return entries

    @property
    def link_base(self) -> str:
        """What links on this server begin with: its public address, or nothing where only their paths are known."""
        return (self.public_url or "").rstrip("/")

    @property
    def videos_dir(self) -> Path:
        """Folder of finished videos."""
        return self.data_dir / "videos"


def split_commas(value: Any) -> Any:
    """Turn "a, b" into ("a", "b"); anything but text stays as it is."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
