"""The studio: the page at `/`, in `server/static`. It talks to the API as any other client does."""

from pathlib import Path

from fastapi import FastAPI, Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STUDIO_FILES = "/studio"
FOLDER = Path(__file__).parent / "static"

# Nothing from elsewhere, nothing inline, no text that becomes markup, no frame around it.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "worker-src 'self'",
        "img-src 'self' data:",
        "media-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        # For the address of the page's own worker.
        "trusted-types studio",
    )
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    # Asked for again each time, and answered with 304: parts of two versions never meet.
    "Cache-Control": "no-cache",
}


def install_studio(app: FastAPI) -> None:
    """Serve the page and its files."""
    app.mount(STUDIO_FILES, _Files(directory=FOLDER))
    # A route of Starlette's, so that it is not part of the API's document.
    app.add_route("/", _page, methods=["GET", "HEAD"], include_in_schema=False)


async def _page(_request: Request) -> Response:
    return FileResponse(FOLDER / "index.html", headers=_HEADERS)


class _Files(StaticFiles):
    """Files with the headers of the page."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response
