"""A process's own metrics, on a port of their own that needs no key."""

from prometheus_client import CollectorRegistry, start_http_server

from ripple_core.contract.settings import SharedSettings


def open_metrics_port(registry: CollectorRegistry, settings: SharedSettings) -> None:
    """Answer Prometheus in a thread, if a port is set.

    Raises:
        ValueError: when the port cannot be opened.
    """
    if settings.metrics_port is None:
        return
    try:
        start_http_server(settings.metrics_port, settings.metrics_host, registry)
    except OSError as error:
        address = f"{settings.metrics_host}:{settings.metrics_port}"
        raise ValueError(
            f"RIPPLE_METRICS_PORT: {address} cannot be opened ({error.strerror or error}); name another."
        ) from None
