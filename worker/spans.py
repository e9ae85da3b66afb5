"""The spans of one execution of a job: its wait, the execution itself, and each of its stages."""

from datetime import datetime

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from ripple_core.contract.job import JobRecord, Stage
from ripple_core.contract.metrics import JobMetrics
from ripple_core.tracing import context_of, tracer


class ExecutionSpans:
    """Begins with the claim; stages follow one another.

    Args:
        record: as claimed.
    """

    def __init__(self, record: JobRecord) -> None:
        assert record.started_at is not None
        parent = context_of(record.traceparent)
        attributes = {"timeripple.job.id": record.id, "timeripple.model": record.request.model}
        wait = tracer.start_span("queue", parent, start_time=_ns(record.waiting_since), attributes=attributes)
        wait.end(_ns(record.started_at))
        self._span = tracer.start_span(
            "job", parent, SpanKind.CONSUMER, attributes | {"timeripple.attempt": record.attempts}
        )
        self._context = trace.set_span_in_context(self._span)
        self._stage: tuple[Stage, Span] | None = None

    def enter(self, stage: Stage) -> None:
        """The job is in this stage now."""
        if self._stage is not None and self._stage[0] == stage:
            return
        self.leave()
        self._stage = (stage, tracer.start_span(stage, self._context))

    def succeeded(self, metrics: JobMetrics) -> None:
        """Tell what the job saved."""
        self._span.set_attribute("timeripple.savings", metrics.attention.savings)
        self._span.set_attribute("timeripple.aggressiveness", metrics.attention.aggressiveness)

    def failed(self, code: str) -> None:
        """Tell why this execution came to nothing."""
        self._span.set_attribute("error.type", code)
        self._span.set_status(Status(StatusCode.ERROR, code))

    def end(self) -> None:
        """The execution is over; what is said a second time changes nothing."""
        self.leave()
        if self._span.is_recording():
            self._span.end()

    def leave(self) -> None:
        """The stage is over."""
        if self._stage is not None:
            self._stage[1].end()
            self._stage = None


def _ns(time: datetime) -> int:
    return int(time.timestamp() * 1e9)
