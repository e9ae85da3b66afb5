"""Serves a job's file: refused ranges are problem details, and retention leaves alone what is being sent."""

import asyncio
from contextlib import suppress
from pathlib import PurePath

from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send

from ripple_core.contract.errors import VideoExpired
from ripple_core.contract.job import JobRecord
from ripple_core.contract.videos import MEDIA_TYPES
from server.errors import problem
from server.service import JobService

# A player asks for one range after the other, with pauses between them.
_MARK_SECONDS = 60.0
_REFUSALS = {
    400: ("malformed_range", "The Range header is not like `bytes=0-1023`."),
    416: ("range_not_satisfiable", "The file ends before the range that was asked for."),
}


class VideoResponse(FileResponse):
    """Sends a file of a job that has succeeded, or the part asked for.

    Raises:
        VideoNotReady, NoVideo, VideoExpired: when there is no such file.
    """

    def __init__(self, service: JobService, record: JobRecord, name: str, download: bool) -> None:
        self._service = service
        self._job_id = record.id
        # Before the file is looked for: after that it must not be removed.
        service.serving.mark(record.id, _MARK_SECONDS)
        suffix = PurePath(name).suffix
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private"}
        if name.startswith("video.") and record.metrics is not None:
            # The same on every server and for every copy, unlike one made from the time of a file.
            headers["ETag"] = f'"{record.metrics.output.sha256}"'
        path = service.file(record, name)
        try:
            # Now rather than by Starlette later: the job may be deleted in between.
            stat_result = path.stat()
        except FileNotFoundError:
            raise VideoExpired("The video has just been deleted.") from None
        super().__init__(
            path,
            stat_result=stat_result,
            media_type=MEDIA_TYPES[suffix],
            filename=f"timeripple-{record.id}{suffix}",
            content_disposition_type="attachment" if download else "inline",
            headers=headers,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI
        marking = asyncio.create_task(self._keep_marked())
        try:
            await super().__call__(scope, receive, _Explaining(scope, receive, send))
        finally:
            marking.cancel()
            with suppress(asyncio.CancelledError):
                await marking

    async def _keep_marked(self) -> None:
        while True:
            await asyncio.sleep(_MARK_SECONDS / 3)
            await run_in_threadpool(self._service.serving.mark, self._job_id, _MARK_SECONDS)


class _Explaining:
    """Passes messages on, with a problem in place of Starlette's plain text for a refused range."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._refused = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] in _REFUSALS:
            self._refused = True
            code, detail = _REFUSALS[message["status"]]
            size = Headers(raw=message["headers"]).get("content-range")
            headers = {"Content-Range": size} if size else None
            answer = problem(HTTPConnection(self._scope), message["status"], code, detail, headers=headers)
            await answer(self._scope, self._receive, self._send)
        elif not self._refused:
            await self._send(message)
