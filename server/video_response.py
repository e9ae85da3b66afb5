"""A file whose refused ranges are problem details too, not Starlette's plain text."""

from fastapi.responses import FileResponse
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send

from server.errors import problem

_REFUSALS = {
    400: ("malformed_range", "The Range header is not like `bytes=0-1023`."),
    416: ("range_not_satisfiable", "The video ends before the range that was asked for."),
}


class VideoResponse(FileResponse):
    """Sends the file or the part asked for."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI
        refused = False

        async def explain(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] in _REFUSALS:
                refused = True
                code, detail = _REFUSALS[message["status"]]
                size = Headers(raw=message["headers"]).get("content-range")
                headers = {"Content-Range": size} if size else None
                answer = problem(HTTPConnection(scope), message["status"], code, detail, headers=headers)
                await answer(scope, receive, send)
            elif not refused:
                await send(message)

        await super().__call__(scope, receive, explain)
