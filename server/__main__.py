"""`python -m server`: the API on the settings in the environment."""

import signal
import sys
import time

import uvicorn
from pydantic import ValidationError
from redis import Redis, RedisError

from ripple_core.contract.errors import UnknownModel
from ripple_core.contract.keys import ApiKeys
from ripple_core.contract.model_config import load_model_configs
from ripple_core.logs import configure_logging
from ripple_core.metrics_port import open_metrics_port
from ripple_core.tracing import configure_tracing, end_tracing
from server.app import create_app
from server.settings import ServerSettings

_REDIS_SECONDS = 5.0
_CONNECT_SECONDS = 2.0
# Open event streams would otherwise keep the server from stopping.
_SHUTDOWN_SECONDS = 3


def main() -> int:
    """Run until stopped; 2 for wrong settings."""
    try:
        settings = ServerSettings()
        load_model_configs(settings)
        configure_logging(settings.log_level, settings.log_format)
        _check_redis(settings)
        configure_tracing("timeripple-server")
        app = create_app(settings)
        open_metrics_port(app.state.metrics_registry, settings)
    except ValidationError as error:
        first = error.errors()[0]
        return _refuse(f"setting {first['loc'][0]}: {first['msg']}")
    except (UnknownModel, ValueError) as error:
        return _refuse(str(error))
    # uvicorn stops gracefully and then raises the signal again; by then there is nothing left to end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        # Ours, with the request's id and without query strings, in which signed links have their tokens.
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    end_tracing()
    return 0


def _check_redis(settings: ServerSettings) -> None:
    """Raise ValueError with what is wrong when the API must not start."""
    if settings.redis_url is None:
        raise ValueError("REDIS_URL is not set; `ripple serve` sets it to the embedded Redis")
    try:
        # Only reads the URL.
        redis = Redis.from_url(
            settings.redis_url, socket_connect_timeout=_CONNECT_SECONDS, socket_timeout=_CONNECT_SECONDS
        )
    except ValueError as error:
        raise ValueError(f"REDIS_URL: {error}") from None
    if settings.needs_keys and (reason := _why_not_exposed(redis, settings)):
        raise ValueError(reason)


def _why_not_exposed(redis: Redis, settings: ServerSettings) -> str | None:
    """Other machines can reach the API: without any key it must not start."""
    host = settings.exposed_host or settings.host
    deadline = time.monotonic() + _REDIS_SECONDS
    while True:
        try:
            if ApiKeys(redis).any_exist():
                return None
            return (
                f"{host} can be reached from other machines and there is no API key; make one with `ripple keys create "
                "NAME`, or let anybody in with --allow-anonymous (RIPPLE_ALLOW_ANONYMOUS=true)"
            )
        except RedisError as error:
            if time.monotonic() > deadline:
                return (
                    f"{host} can be reached from other machines, and Redis cannot tell whether there are keys: {error}"
                )
            time.sleep(0.2)


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    return 2


if __name__ == "__main__":
    sys.exit(main())
