"""Settings of the API process."""

import ipaddress
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from ripple_core.contract.settings import SharedSettings, split_commas


class ServerSettings(SharedSettings):
    """Environment variables `RIPPLE_*`."""

    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8000, ge=1, le=65535, description="Port of the API.")
    exposed_host: str | None = Field(
        None, description="Address at which others reach it when that is not `host`: behind a container's port, say."
    )
    allow_anonymous: bool = Field(False, description="Serve other machines without any API key.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Host names, separated by commas, that requests without a key may name besides local ones."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins, separated by commas, whose pages may call the API. None by default."
    )
    dashboards_url: str | None = Field(
        None, pattern="^https?://[^/]", description="Where people find the dashboards, for a link on the page."
    )
    max_body_bytes: int = Field(20 * 1024**2, ge=1024, description="Largest request body.")
    rate_limit: str = Field(
        "600/minute", pattern=r"^[1-9]\d*/(second|minute|hour|day)$", description="Submissions of one API key."
    )
    max_active_jobs: int = Field(100, ge=1, description="Queued and running jobs of one API key.")
    max_queued_jobs: int = Field(
        1000, ge=1, description="Queued jobs of all; more are refused until some have started."
    )
    max_queued_seconds: float = Field(
        24 * 3600, gt=0, description="Estimated seconds of work in the queue; more is refused until some is done."
    )

    @field_validator("allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split_lists(cls, value: Any) -> Any:
        return split_commas(value)

    @property
    def is_exposed(self) -> bool:
        """Whether other machines can reach the API."""
        host = self.exposed_host or self.host
        try:
            return not ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host != "localhost"

    @property
    def needs_keys(self) -> bool:
        """Whether a request needs a key even while none has been made."""
        return self.is_exposed and not self.allow_anonymous
