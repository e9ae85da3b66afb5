"""Settings that server and worker share, read from the environment once per process."""

from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

DAY_SECONDS = 24 * 3600


class SharedSettings(BaseSettings):
    """Environment variables `RIPPLE_*`, and `REDIS_URL`."""

    model_config = SettingsConfigDict(env_prefix="RIPPLE_", env_file=None, extra="ignore", frozen=True)

    redis_url: str | None = Field(
        None,
        validation_alias=AliasChoices("redis_url", "REDIS_URL", "RIPPLE_REDIS_URL"),
        description="Redis to use; without it one is embedded, with its data under the data folder.",
    )
    data_dir: Path = Field(Path("ripple-data"), description="Videos, and the embedded Redis's data.")
    model: str = Field("builtin", description="builtin, a name of `ripple models`, or a diffusers pipeline folder.")
    video_ttl_seconds: int = Field(7 * DAY_SECONDS, ge=60, description="How long finished videos are kept.")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severe level logged.")

    @property
    def videos_dir(self) -> Path:
        """Folder of finished MP4s."""
        return self.data_dir / "videos"
