"""`python -m server`: the API on the settings in the environment."""

import logging
import signal
import sys

import uvicorn
from pydantic import ValidationError
from redis import Redis

from ripple_core.contract.errors import UnknownModel
from ripple_core.contract.models import find_model
from server.app import create_app
from server.settings import ServerSettings

# Open event streams would otherwise keep the server from stopping.
_SHUTDOWN_SECONDS = 3


def main() -> int:
    """Run until stopped; 2 for wrong settings."""
    try:
        settings = ServerSettings()
        find_model(settings.model)
    except ValidationError as error:
        first = error.errors()[0]
        return _refuse(f"setting {first['loc'][0]}: {first['msg']}")
    except UnknownModel as error:
        return _refuse(str(error))
    if settings.redis_url is None:
        return _refuse("REDIS_URL is not set; `ripple serve` sets it to the embedded Redis")
    try:
        Redis.from_url(settings.redis_url)  # only reads the URL
    except ValueError as error:
        return _refuse(f"REDIS_URL: {error}")
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # uvicorn stops gracefully and then raises the signal again; by then there is nothing left to end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level.lower(),
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    return 0


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    return 2


if __name__ == "__main__":
    sys.exit(main())
