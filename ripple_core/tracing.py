"""OpenTelemetry: without an endpoint every span costs nothing and goes nowhere.

A job's trace begins with the request that submitted it, and goes on in the worker: the record carries the context.
"""

import os
from importlib.util import find_spec

from opentelemetry import propagate, trace
from opentelemetry.context import Context

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"

tracer = trace.get_tracer("timeripple")


def configure_tracing(service: str) -> None:
    """Export this process's spans if OTEL_EXPORTER_OTLP_ENDPOINT, or ..._TRACES_ENDPOINT, says where to.

    The other variables of the OpenTelemetry specification hold too, such as OTEL_RESOURCE_ATTRIBUTES.

    Args:
        service: `service.name` of the spans, unless OTEL_SERVICE_NAME has another.

    Raises:
        ValueError: when an endpoint is set and the SDK is not installed.
    """
    if not (os.environ.get(ENDPOINT) or os.environ.get(TRACES_ENDPOINT)):
        return
    if find_spec("opentelemetry.sdk") is None or find_spec("opentelemetry.exporter") is None:
        raise ValueError(f"{ENDPOINT} needs the package's extra `otel`: pip install 'timeripple[otel]'")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    os.environ.setdefault("OTEL_SERVICE_NAME", service)
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def traceparent() -> str | None:
    """The present context as a W3C `traceparent`; None outside any trace."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


def context_of(parent: str | None) -> Context:
    """What spans of work that was handed over have as their parent."""
    return propagate.extract({"traceparent": parent} if parent else {})
