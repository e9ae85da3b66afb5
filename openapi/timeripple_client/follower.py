"""Follows a job's events, whatever becomes of the connection; both clients feed it."""

import math
import time
from typing import Any

import httpx
from httpx_sse import ServerSentEvent

from timeripple_client.protocol import Event, pause_before_retry, refusal

# More than the server's pause between signs of life.
_SILENCE_SECONDS = 30.0
# Signs of life would hide a deadline from the read timeout: with one, ask anew after this much silence.
_SILENCE_BEFORE_DEADLINE_SECONDS = 5.0


class Follower:
    """Where the reader of a job's events stands, over as many connections as it takes.

    Args:
        timeout_s: until when the job must have ended.
    """

    def __init__(self, timeout_s: float | None) -> None:
        self._deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        self._last_id = ""
        self._failures = 0
        self.ended = False
        self.pause_seconds = 0.0

    def request(self) -> dict[str, Any]:
        """Arguments of httpx for the next connection.

        Raises:
            TimeoutError: when the job has not ended in time.
        """
        most = _SILENCE_SECONDS if self._deadline == math.inf else _SILENCE_BEFORE_DEADLINE_SECONDS
        asked = {"Last-Event-ID": self._last_id} if self._last_id else {}
        return {"headers": asked, "timeout": min(self._seconds_left(), most)}

    def accepts(self, response: httpx.Response) -> bool:
        """Whether there are events to read from an answer; a refusal's body must have been read.

        Raises:
            TimeRippleError: when the server refuses for good.
        """
        self.ended = response.status_code == 204
        if response.is_success:
            return not self.ended
        self._pause_after(response)
        return False

    def take(self, received: ServerSentEvent) -> Event | None:
        """An event of the job; None for a sign of life, which httpx-sse gives as an event without data.

        Raises:
            TimeoutError: when the job has not ended in time.
        """
        self._seconds_left()
        if not received.data:
            return None
        event = Event(received.id, received.event, received.json())
        self._last_id, self._failures, self.ended = event.id, 0, event.ends_the_job
        return event

    def check_ended(self) -> None:
        """Raise what a broken connection raises when the server closed the stream before the job's end."""
        if not self.ended:
            raise httpx.RemoteProtocolError("The events ended before their job did.")

    def lost(self, error: httpx.TransportError) -> None:
        """Note that the connection broke, or raise the error after too many in a row.

        Raises:
            TimeoutError: when the job has not ended in time.
        """
        left = self._seconds_left()
        if isinstance(error, httpx.ReadTimeout) and left != math.inf:
            self.pause_seconds = 0.0
        else:
            self._pause_after(error)

    def _pause_after(self, failure: httpx.Response | httpx.TransportError) -> None:
        pause = pause_before_retry(failure, self._failures)
        if pause is None:
            raise failure if isinstance(failure, httpx.TransportError) else refusal(failure)
        self._failures += 1
        self.pause_seconds = min(pause, self._seconds_left())

    def _seconds_left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("The job has not ended in time; it goes on.")
        return left
