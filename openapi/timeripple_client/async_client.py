"""The client for asyncio."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import httpx
from httpx_sse import EventSource

from timeripple_client import protocol
from timeripple_client.follower import Follower
from timeripple_client.models import EstimateAnswer, GenerateRequest, Job, JobPage, ModelList, Progress
from timeripple_client.protocol import Event, FileKind, checked, job_path


class AsyncClient:
    """Speaks to one server; an asynchronous context manager.

    Args:
        base_url: of the server.
        api_key: where keys are in use.
        timeout_s: of each request.

    Raises:
        TimeRippleError: from every method, when the server refuses.
        httpx.TransportError: when it cannot be reached.
    """

    def __init__(
        self, base_url: str = "http://127.0.0.1:8000", api_key: str | None = None, timeout_s: float = 30.0
    ) -> None:
        self._http = httpx.AsyncClient(base_url=base_url, headers=protocol.headers(api_key), timeout=timeout_s)
        self._reached = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def generate(
        self,
        prompt: str | GenerateRequest,
        *,
        image: bytes | Path | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Job:
        """Have a video made; returns at once with the queued job.

        Sent again under one idempotency key when the connection breaks or the server is busy: never two jobs.

        Args:
            prompt: what it shows, or a whole request.
            image: what it begins from, for models that take one.
            idempotency_key: a name of your own for this submission; made up if omitted.
            **fields: those of GenerateRequest.
        """
        key = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        body = protocol.body_of(prompt, image, fields)
        return Job.model_validate_json((await self._send("POST", "/generate", headers=key, **body)).content)

    async def estimate(
        self, prompt: str | GenerateRequest, *, image: bytes | Path | None = None, **fields: Any
    ) -> EstimateAnswer:
        """What the same request to `generate` would cost."""
        body = protocol.body_of(prompt, image, fields)
        return EstimateAnswer.model_validate_json((await self._send("POST", "/generate/estimate", **body)).content)

    async def get(self, job: Job | str) -> Job:
        """A job as it is now."""
        return Job.model_validate_json((await self._send("GET", job_path(job))).content)

    async def preview(self, job: Job | str) -> bytes:
        """What a running job looks like so far, as animated WebP; for jobs with `preview=True`, after each such event.

        Raises:
            TimeRippleError: with code "no_preview" when there is none, not yet or no longer.
        """
        return (await self._send("GET", f"{job_path(job)}/preview")).content

    async def jobs(self, status: str | None = None) -> AsyncIterator[Job]:
        """All jobs, newest first."""
        asked = {"limit": "100"} | ({"status": status} if status else {})
        while True:
            page = JobPage.model_validate_json((await self._send("GET", "/jobs", params=asked)).content)
            for job in page.jobs:
                yield job
            if page.next_cursor is None:
                return
            asked["cursor"] = page.next_cursor

    async def models(self) -> ModelList:
        """What the server generates with."""
        return ModelList.model_validate_json((await self._send("GET", "/models")).content)

    async def events(self, job: Job | str, *, timeout_s: float | None = None) -> AsyncIterator[Event]:
        """Follow a job from its start to its end, over broken connections too.

        Raises:
            TimeoutError: when the job has not ended in time.
        """
        follower = Follower(timeout_s)
        while not follower.ended:
            try:
                async with self._http.stream("GET", f"{job_path(job)}/events", **follower.request()) as response:
                    if not response.is_success:
                        await response.aread()
                    if follower.accepts(response):
                        async for received in EventSource(response).aiter_sse():
                            if event := follower.take(received):
                                yield event
                        follower.check_ended()
            except httpx.TransportError as error:
                follower.lost(error)
            if not follower.ended:
                await asyncio.sleep(follower.pause_seconds)

    async def wait(
        self, job: Job | str, *, timeout_s: float | None = None, on_progress: Callable[[Progress], None] | None = None
    ) -> Job:
        """The job once it has ended; its `status` says how.

        Raises:
            TimeoutError: when it has not ended in time; it goes on.
        """
        async for event in self.events(job, timeout_s=timeout_s):
            if event.name == "progress" and on_progress is not None:
                on_progress(Progress.model_validate(event.data))
        return await self.get(job)

    async def download(self, job: Job, path: Path | None = None, kind: FileKind = "video") -> Path:
        """Save a file of a job that has succeeded, complete or not at all; goes on after a broken connection.

        Args:
            job: as it is now.
            path: where to; the job's id with a fitting suffix by default.
            kind: which file.
        """
        partial = Path(f".{job.id}.{kind}.partial") if path is None else path.with_name(f".{path.name}.partial")
        etag, failures = None, 0
        try:
            while True:
                try:
                    have = partial.stat().st_size if partial.exists() else 0
                    asked = protocol.resume_headers(have, etag)
                    async with self._http.stream("GET", protocol.link_of(job, kind), headers=asked) as response:
                        if not response.is_success:
                            await response.aread()
                        checked(response)
                        etag = response.headers.get("etag")
                        with partial.open("ab" if response.status_code == 206 else "wb") as file:
                            async for chunk in response.aiter_bytes():
                                file.write(chunk)
                    return protocol.finish_download(job, kind, partial, protocol.target_of(job, path, response))
                except httpx.TransportError as error:
                    pause = protocol.pause_before_retry(error, failures)
                    if pause is None:
                        raise
                    failures += 1
                    await asyncio.sleep(pause)
        finally:
            partial.unlink(missing_ok=True)

    async def cancel(self, job: Job | str) -> Job:
        """Cancel an active job; one that has ended meanwhile stays as it is, with its files."""
        return Job.model_validate_json((await self._send("POST", f"{job_path(job)}/cancel")).content)

    async def delete(self, job: Job | str) -> None:
        """Cancel an active job, or remove an ended one with its files."""
        await self._send("DELETE", job_path(job))

    async def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        tries = 0
        while True:
            try:
                failure = await self._http.request(method, path, **arguments)
                self._reached = True
                pause = protocol.pause_before_retry(failure, tries)
                if pause is None:
                    return checked(failure)
            except httpx.TransportError as error:
                pause = protocol.pause_before_retry(error, tries)
                # Where no server has ever answered there is none.
                if pause is None or (isinstance(error, httpx.ConnectError) and not self._reached):
                    raise
            tries += 1
            await asyncio.sleep(pause)
