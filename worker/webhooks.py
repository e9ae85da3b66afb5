"""Tells webhooks of ended jobs: at least once, signed, and again after longer and longer pauses while that fails."""

import logging
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Literal

from redis import Redis, RedisError
from standardwebhooks import Webhook as Signer

from ripple_core.contract.addresses import AllowList, Resolver
from ripple_core.contract.errors import JobNotFound
from ripple_core.contract.job import JobRecord, JobStatus, Webhook, WebhookDelivery
from ripple_core.contract.links import signed_video_path, signing_secret
from ripple_core.contract.settings import DAY_SECONDS, SharedSettings
from ripple_core.contract.store import JobStore
from ripple_core.contract.webhooks import (
    WebhookData,
    WebhookLinks,
    WebhookMetrics,
    WebhookOutbox,
    WebhookPayload,
    webhook_secret,
)
from ripple_core.versions import versions
from worker.post import Answer, Poster, PostFailed

logger = logging.getLogger(__name__)

# Pauses after the first, second, ... failed attempt; after one more failure there is no other.
RETRY_SECONDS = (5, 30, 120, 600, 3600, 6 * 3600, DAY_SECONDS)
# Longer than an attempt takes: then someone else may make it.
LEASE_SECONDS = 60.0
_POLL_SECONDS = 1.0
# So that receivers which do not answer hold up others less.
_NUM_THREADS = 4
_GONE = 410

Attempted = Literal["delivered", "postponed", "given_up"]

_EVENT_TYPES = {
    JobStatus.SUCCEEDED: "video.completed",
    JobStatus.FAILED: "video.failed",
    JobStatus.CANCELLED: "video.cancelled",
}


class WebhookDeliverer:
    """Makes the attempts that are due; several may work on the same store.

    Args:
        store: of the records.
        settings: which addresses are allowed, and where clients reach the API.
        video_link: path at which a receiver gets a succeeded job's video.
        timeout_seconds: of one attempt.
        resolver: gives the addresses of a name.
        on_attempt: told whether it delivered, will be repeated or was the last.

    Raises:
        ValueError: when the list of allowed addresses is malformed.
    """

    def __init__(
        self,
        store: JobStore,
        settings: SharedSettings,
        video_link: Callable[[JobRecord], str],
        timeout_seconds: float = 10.0,
        resolver: Resolver = socket.getaddrinfo,
        on_attempt: Callable[[Attempted], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._outbox = WebhookOutbox(store.redis)
        self._link_base = settings.link_base
        self._video_link = video_link
        self._on_attempt = on_attempt
        self._poster = Poster(AllowList.of(settings.webhook_allow), timeout_seconds, resolver)

    def deliver_due(self, now: float) -> bool:
        """Make one attempt if one is due; False when none was.

        Args:
            now: seconds since 1970.
        """
        job_id = self._outbox.claim(now, LEASE_SECONDS)
        if job_id is None:
            return False
        try:
            record = self._store.get(job_id)
        except JobNotFound:
            self._outbox.remove(job_id)
            return True
        # Whoever recorded the end may have died before removing the entry.
        if record.webhook is None or record.webhook.state in ("delivered", "failed"):
            self._outbox.remove(job_id)
        else:
            self._settle(record, record.webhook, self._attempt(record, record.webhook, now), now)
        return True

    def payload(self, record: JobRecord) -> WebhookPayload:
        """What a receiver is told of an ended job."""
        assert record.finished_at is not None
        metrics = record.metrics
        has_video = record.status == JobStatus.SUCCEEDED
        links = WebhookLinks(
            job=f"{self._link_base}/jobs/{record.id}",
            video=f"{self._link_base}{self._video_link(record)}" if has_video else None,
        )
        data = WebhookData(
            **{name: getattr(record, name) for name in ("id", "status", "created_at", "finished_at", "error", "batch")},
            metrics=WebhookMetrics(latency_s=metrics.latency_s, savings=metrics.attention.savings) if metrics else None,
            links=links,
        )
        return WebhookPayload(type=_EVENT_TYPES[record.status], timestamp=record.finished_at, data=data)

    def _attempt(self, record: JobRecord, webhook: Webhook, now: float) -> Answer | PostFailed:
        body = self.payload(record).model_dump_json()
        message_id = f"msg_{record.id}"
        at = datetime.fromtimestamp(now, UTC)
        signer = Signer(webhook_secret(self._store.redis, record.owner))
        headers = {
            "content-type": "application/json",
            "user-agent": f"TimeRipple/{versions()['timeripple']}",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now)),
            "webhook-signature": signer.sign(message_id, at, body),
        }
        try:
            return self._poster.post(webhook.url, headers, body.encode())
        except PostFailed as failure:
            return failure

    def _settle(self, record: JobRecord, webhook: Webhook, outcome: Answer | PostFailed, now: float) -> None:
        """Record first, then change the outbox: dying in between repeats an attempt instead of losing one."""
        status_code = outcome.status_code if isinstance(outcome, Answer) else None
        error = _failure(outcome)
        delivery = WebhookDelivery(at=datetime.fromtimestamp(now, UTC), status_code=status_code, error=error)
        deliveries = [*webhook.deliveries, delivery]
        told = webhook.model_copy(update={"deliveries": deliveries, "state": "delivered", "next_attempt_at": None})
        if error is None:
            self._store.set_webhook(record.id, told)
            self._outbox.remove(record.id)
            self._on_attempt("delivered")
            return
        about = {"job_id": record.id, "request_id": record.request_id}
        logger.warning("attempt %d to tell the webhook failed: %s", len(deliveries), error, extra=about)
        if status_code == _GONE or len(deliveries) > len(RETRY_SECONDS):
            self._store.set_webhook(record.id, told.model_copy(update={"state": "failed"}))
            self._outbox.remove(record.id)
            self._on_attempt("given_up")
            return
        asked_for = outcome.retry_after_seconds if isinstance(outcome, Answer) else 0
        due = now + max(RETRY_SECONDS[len(deliveries) - 1], min(asked_for, DAY_SECONDS))
        pending = {"state": "pending", "next_attempt_at": datetime.fromtimestamp(due, UTC)}
        self._store.set_webhook(record.id, told.model_copy(update=pending))
        self._outbox.postpone(record.id, due)
        self._on_attempt("postponed")


def signed_video_link(redis: Redis, seconds: int) -> Callable[[JobRecord], str]:
    """Makes paths at which a video can be had without an API key, for so many seconds."""

    def link(record: JobRecord) -> str:
        return signed_video_path(signing_secret(redis), record.id, time.time() + seconds)

    return link


def start_deliverers(deliverer: WebhookDeliverer, ended: Event) -> None:
    """Deliver in threads of this process until it ends; what an end cuts off is delivered again."""
    for _ in range(_NUM_THREADS):
        Thread(target=_deliver, args=(deliverer, ended), name="webhooks", daemon=True).start()


def _deliver(deliverer: WebhookDeliverer, ended: Event) -> None:
    while not ended.wait(_POLL_SECONDS):
        try:
            while not ended.is_set() and deliverer.deliver_due(time.time()):
                pass
        except RedisError as error:
            logger.warning("Redis cannot be reached: %s", error)
        # Border of the thread: one record that cannot be read must not end the telling of all others.
        except Exception:
            logger.exception("an attempt to tell a webhook went wrong")


def _failure(outcome: Answer | PostFailed) -> str | None:
    if isinstance(outcome, PostFailed):
        return str(outcome)
    status_code = outcome.status_code
    if 200 <= status_code < 300:
        return None
    if 300 <= status_code < 400:
        return f"the answer was {status_code}; redirects are not followed"
    if status_code == _GONE:
        return "the answer was 410: the receiver is gone for good"
    return f"the answer was {status_code}"
