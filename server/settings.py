"""Settings of the API process."""

from pydantic import Field

from ripple_core.contract.settings import SharedSettings


class ServerSettings(SharedSettings):
    """Environment variables `RIPPLE_*`."""

    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8000, ge=1, le=65535, description="Port of the API.")
