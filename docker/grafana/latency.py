"""The dashboard "Latency"."""

from grafana.panel import MODEL, RANGE, RATE, Panel, quantile, quantiles

_QUEUE = f'{MODEL}, stage="queue"'
_JOB, _STAGE = "timeripple_job_seconds", "timeripple_stage_seconds"
_REQUEST = "timeripple_http_request_seconds"
# Not what machines ask every few seconds.
_ASKED = 'route!~"/healthz|/readyz|/metrics"'

PANELS = [
    Panel("Job, median", {quantile(0.5, _JOB, window=RANGE): "p50"}, "s", "stat", 6),
    Panel("Job, p99", {quantile(0.99, _JOB, window=RANGE): "p99"}, "s", "stat", 6),
    Panel("Wait in the queue, p99", {quantile(0.99, _STAGE, labels=_QUEUE, window=RANGE): "p99"}, "s", "stat", 6),
    Panel("Answers of the API, p99", {quantile(0.99, _REQUEST, labels=_ASKED, window=RANGE): "p99"}, "s", "stat", 6),
    Panel("From acceptance to the finished file", quantiles(_JOB, "model"), "s", width=12),
    Panel("Wait in the queue", quantiles(_STAGE, "model", _QUEUE), "s", width=12),
    Panel("Stages, p50", {quantile(0.5, _STAGE, "stage"): "{{stage}}"}, "s"),
    Panel("Stages, p90", {quantile(0.9, _STAGE, "stage"): "{{stage}}"}, "s"),
    Panel("Stages, p99", {quantile(0.99, _STAGE, "stage"): "{{stage}}"}, "s"),
    Panel("Denoising step", quantiles("timeripple_denoising_step_seconds", "model"), "s"),
    Panel(
        "Requests",
        {f"sum by (route, status) (rate(timeripple_http_requests_total{{{_ASKED}}}[{RATE}]))": "{{route}} {{status}}"},
        "reqps",
    ),
    Panel("Time to the first byte, p90", {quantile(0.9, _REQUEST, "route", _ASKED, RATE): "{{route}}"}, "s"),
    Panel(
        "SLO burn",
        {
            f"timeripple:{slo}_burn:{window}": f"{slo} {window}"
            for slo in ("wait", "success")
            for window in ("5m", "1h")
        },
        width=24,
        description="How many times faster than allowed the error budget is spent: 1 spends it exactly in its period. "
        "Objectives are in docker/prometheus/rules.yml.",
    ),
]
