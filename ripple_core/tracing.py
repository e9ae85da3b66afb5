"""OpenTelemetry: without an endpoint every span costs nothing and goes nowhere.

A job's trace begins with the request that submitted it, and goes on in the worker: the record carries the context.
"""

import os
from threading import Thread

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_LAST_SECONDS = 2.0

tracer = trace.get_tracer("timeripple")
_propagator = TraceContextTextMapPropagator()


def configure_tracing(service: str) -> None:
    """Export this process's spans if OTEL_EXPORTER_OTLP_ENDPOINT, or ..._TRACES_ENDPOINT, says where to.

    The SDK reads its other variables too, such as OTEL_RESOURCE_ATTRIBUTES or OTEL_TRACES_SAMPLER.

    Args:
        service: `service.name` of the spans, unless OTEL_SERVICE_NAME has another.

    Raises:
        ValueError: when an endpoint is set and the SDK is not installed, or another protocol is asked for.
    """
    if not (os.environ.get(ENDPOINT) or os.environ.get(TRACES_ENDPOINT)):
        return
    for name in _PROTOCOLS:
        if os.environ.get(name, _PROTOCOL) not in ("", _PROTOCOL):
            raise ValueError(f"{name}: spans go over {_PROTOCOL} only; unset it, and name the receiver's HTTP port.")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ValueError(f"{ENDPOINT} needs the package's extra `otel`: pip install 'timeripple[otel]'") from None

    os.environ.setdefault("OTEL_SERVICE_NAME", service)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def end_tracing() -> None:
    """Send what is left, for a moment at most: the SDK alone would wait half a minute for a receiver that is away."""
    shutdown = getattr(trace.get_tracer_provider(), "shutdown", None)
    if shutdown is not None:
        last = Thread(target=shutdown, daemon=True)
        last.start()
        last.join(_LAST_SECONDS)


def traceparent() -> str | None:
    """The present context as a W3C `traceparent`; None outside any trace."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")


def context_of(parent: str | None) -> Context:
    """What spans of work that was handed over have as their parent."""
    return _propagator.extract({"traceparent": parent} if parent else {})
