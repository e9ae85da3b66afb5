"""Signed links to a job's files, for players and webhook receivers that have no API key."""

import hashlib
import secrets
import time
from typing import Any, Literal

from itsdangerous import BadData, URLSafeSerializer
from redis import Redis

from ripple_core.contract.store import PREFIX

SIGNING_SECRET = f"{PREFIX}signing_secret"

Verdict = Literal["valid", "expired", "invalid"]


def signing_secret(redis: Redis) -> str:
    """The deployment's secret, made on first use."""
    client: Any = redis
    client.set(SIGNING_SECRET, secrets.token_hex(32), nx=True)
    return str(client.get(SIGNING_SECRET).decode())


def sign(secret: str, job_id: str, expires_at: float) -> str:
    """A token for all files of one job until `expires_at`, in seconds since 1970."""
    return str(_serializer(secret).dumps([job_id, int(expires_at)]))


def verify(secret: str, token: str, job_id: str) -> Verdict:
    """Whether the token is good for this job's files now."""
    try:
        signed_id, expires_at = _serializer(secret).loads(token)
    except (BadData, ValueError, TypeError):
        return "invalid"
    if signed_id != job_id:
        return "invalid"
    return "valid" if time.time() < expires_at else "expired"


def signed_video_path(secret: str, job_id: str, expires_at: float) -> str:
    """Path of a job's video with a token."""
    return f"/jobs/{job_id}/video?token={sign(secret, job_id, expires_at)}"


def _serializer(secret: str) -> URLSafeSerializer:
    signer = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}
    return URLSafeSerializer(secret, salt="job files", signer_kwargs=signer)
