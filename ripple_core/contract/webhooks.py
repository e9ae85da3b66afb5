"""Webhooks between server and workers: what is told, to whom it may be told, and the outbox of what is due."""

import base64
import secrets
import socket
from datetime import datetime
from typing import Any, Literal

import httpx
from pydantic import BaseModel, Field
from redis import Redis

from ripple_core.contract.addresses import AddressRefused, AllowList, Resolver
from ripple_core.contract.errors import InvalidRequest, Violation
from ripple_core.contract.job import JobError, JobStatus
from ripple_core.contract.metrics import LatencySeconds
from ripple_core.contract.store import PREFIX

_OUTBOX = f"{PREFIX}webhooks"
_SECRETS = f"{PREFIX}webhook_secrets"
_DEFAULT_PORTS = {"http": 80, "https": 443}

# KEYS: webhooks. ARGV: now, end of the lease. Returns the job, whose next turn is the end of the lease: whoever else
# asks does not get it, but it is not lost when the one who took it dies.
_CLAIM = """
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, 1)
if due[1] then redis.call('ZADD', KEYS[1], 'XX', ARGV[2], due[1]) end
return due[1]
"""


class WebhookMetrics(BaseModel):
    """The metrics in short."""

    latency_s: LatencySeconds = Field(description="Seconds of each stage.")
    savings: float = Field(description="Share of the attention FLOPs that reuse saved.")


class WebhookLinks(BaseModel):
    """Where to go from here; absolute when the operator has set RIPPLE_PUBLIC_URL, else paths."""

    job: str = Field(description="The job.")
    video: str | None = Field(description="The video; null unless the job succeeded.")


class WebhookData(BaseModel):
    """The job that has ended."""

    id: str = Field(description="The job's id.")
    status: JobStatus = Field(description="How it ended.")
    created_at: datetime = Field(description="When it was accepted.")
    finished_at: datetime = Field(description="When it ended.")
    error: JobError | None = Field(description="Why it failed.")
    metrics: WebhookMetrics | None = Field(description="What it took; null unless the job succeeded.")
    batch: list[str] = Field(description="All jobs of the request when it asked for several videos.")
    links: WebhookLinks = Field(description="Where to go from here.")


class WebhookPayload(BaseModel):
    """The body of the POST."""

    type: Literal["video.completed", "video.failed", "video.cancelled"] = Field(description="What happened.")
    timestamp: datetime = Field(description="When the job ended.")
    data: WebhookData = Field(description="The job that has ended.")


class WebhookOutbox:
    """Ended jobs whose webhook is due; the store puts them in with their last change of status."""

    def __init__(self, redis: Redis) -> None:
        # Any: redis-py types every answer as bytes or text, and ours are bytes.
        self._redis: Any = redis
        self._claim_script = redis.register_script(_CLAIM)

    def claim(self, now: float, lease_seconds: float) -> str | None:
        """Id of a job that is due, kept from all others for the lease; None when none is.

        Args:
            now: seconds since 1970.
        """
        job_id = self._claim_script(keys=[_OUTBOX], args=[now, now + lease_seconds])
        return job_id.decode() if job_id else None

    def postpone(self, job_id: str, until: float) -> None:
        """Have another attempt made then, unless the job has been deleted."""
        self._redis.zadd(_OUTBOX, {job_id: until}, xx=True)

    def remove(self, job_id: str) -> None:
        """Make no more attempts."""
        self._redis.zrem(_OUTBOX, job_id)


def webhook_secret(redis: Redis, owner: str | None) -> str:
    """What signs the webhooks of an API key, or of those who use none; made on first use."""
    commands: Any = redis
    field = owner or ""
    commands.hsetnx(_SECRETS, field, f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}")
    return str(commands.hget(_SECRETS, field).decode())


def check_webhook_url(url: str, allow: tuple[str, ...], resolver: Resolver = socket.getaddrinfo) -> None:
    """Refuse an address that a webhook may not reach; it is checked again at every delivery.

    Args:
        url: as a client gave it.
        allow: hosts and networks of RIPPLE_WEBHOOK_ALLOW.

    Raises:
        InvalidRequest: naming the reason and the remedy.
    """
    allow_list = AllowList.of(allow)
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise _refused(f"it is no URL: {error}") from error
    problem = _problem_of_form(parsed, allow_list)
    if problem is not None:
        raise _refused(problem)
    try:
        allow_list.resolve(*host_and_port(parsed), resolver)
    except AddressRefused as error:
        raise _refused(f"{error}; an operator may list the host or its network in RIPPLE_WEBHOOK_ALLOW") from error


def host_and_port(url: httpx.URL) -> tuple[str, int]:
    """Where a checked URL leads; the host in ASCII."""
    return url.raw_host.decode("ascii"), url.port or _DEFAULT_PORTS[url.scheme]


def _problem_of_form(url: httpx.URL, allow_list: AllowList) -> str | None:
    # Not url.host: that turns names back from ASCII, which not every name can be.
    host = url.raw_host.decode("ascii")
    if url.scheme not in _DEFAULT_PORTS or not host:
        return "it must begin with https:// and a host"
    if url.userinfo:
        return "it must not contain a user name or password; the signature tells who sends"
    if url.fragment:
        return "it must not contain a #fragment, which is never sent"
    if url.port is not None and not 1 <= url.port <= 65535:
        return f"port {url.port} does not exist; ports are 1 to 65535"
    if url.scheme == "http" and not allow_list.names_host(host):
        return (
            f"http:// is for hosts in RIPPLE_WEBHOOK_ALLOW only, and {host} is not listed there; use https://, "
            "or ask the operator to list it"
        )
    return None


def _refused(problem: str) -> InvalidRequest:
    return InvalidRequest(
        [Violation("webhook.url", f"the webhook's address is refused: {problem}.", "https URLs of public hosts")]
    )
