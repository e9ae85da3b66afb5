"""Signed, expiring links to a job's files, for players that cannot send a key."""

import time
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from ripple_core.contract.links import signed_video_path
from server.deps import OwnRecord, Service, Settings
from server.errors import responses

router = APIRouter(prefix="/jobs", tags=["jobs"])


class SignedLink(BaseModel):
    """A link that works without a key."""

    url: str = Field(
        description="The video; its token opens /thumbnail and /spritesheet too. A path unless the server "
        "knows its public address."
    )
    expires_at: datetime = Field(description="Until when it works.")


@router.post("/{job_id}/link", status_code=201, responses=responses(404, 409, 410, 422))
def create_link(
    record: OwnRecord,
    service: Service,
    settings: Settings,
    seconds: Annotated[
        int | None, Query(ge=60, le=366 * 24 * 3600, description="How long it shall hold; RIPPLE_LINK_SECONDS at most.")
    ] = None,
) -> SignedLink:
    """Make a link to a finished video that works without a key, for a limited time."""
    service.require_video(record)
    expires_at = int(time.time()) + min(seconds or settings.link_seconds, settings.link_seconds)
    path = signed_video_path(service.signing_secret(), record.id, expires_at)
    return SignedLink(url=f"{settings.link_base}{path}", expires_at=datetime.fromtimestamp(expires_at, UTC))
