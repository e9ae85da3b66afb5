"""The dashboard "Fleet"."""

from grafana.panel import JOB_RATE, MODEL, Panel, increase, rate, stored

_ENDED = "jobs_ended"
_FAILED = f'{MODEL}, status="failed"'
_FIRING = 'ALERTS{alertstate="firing", alertname=~"TimeRipple.*"}'
_QUEUE = "{{model}} {{priority}}"
# Workers of one machine tell of the same GPUs.
_GPU, _GPU_NAME = "max by (uuid, name)", "{{name}} {{uuid}}"

PANELS = [
    Panel("Workers", {stored("timeripple_workers"): "alive"}, kind="stat", width=3, alarm=("below", 1)),
    Panel("Alerts", {f"count({_FIRING}) or vector(0)": "firing"}, kind="stat", width=3, alarm=("above", 1)),
    Panel("Queued", {stored("timeripple_queued_jobs"): "jobs"}, kind="stat", width=3),
    Panel("Oldest queued", {"max(timeripple_queue_oldest_age_seconds)": "age"}, "s", "stat", 3),
    Panel("Work in the queue", {stored("timeripple_queued_work_seconds"): "estimated"}, "s", "stat", 3),
    Panel(
        "Failed",
        {f"{increase(_ENDED, labels=_FAILED)} / {increase(_ENDED)}": "share"},
        "percentunit",
        "stat",
        3,
        alarm=("above", 0.1),
    ),
    Panel("Redis", {"min(timeripple_redis_up)": "up"}, kind="stat", width=3, alarm=("below", 1)),
    Panel(
        "Disk free",
        {"min(timeripple_data_free_bytes / timeripple_data_size_bytes)": "free"},
        "percentunit",
        "stat",
        3,
        alarm=("below", 0.1),
    ),
    Panel("Workers by state", {stored("timeripple_workers", "state"): "{{state}}"}),
    Panel(
        "Workers by model",
        {
            stored("timeripple_model_workers", "model", MODEL): "{{model}} taken",
            stored("timeripple_model_loaded_workers", "model", MODEL): "{{model}} loaded",
        },
    ),
    Panel("Jobs by status", {stored("timeripple_jobs", "status"): "{{status}}"}),
    Panel("Messages by queue", {stored("timeripple_queue_messages", "model, priority", MODEL): _QUEUE}),
    Panel(
        "Oldest in the queue",
        {stored("timeripple_queue_oldest_age_seconds", "model, priority", MODEL): _QUEUE},
        "s",
    ),
    Panel("Ends of jobs", {rate(_ENDED, "status"): "{{status}}"}, "ops"),
    Panel("Failures by cause", {rate(_ENDED, "error_code", _FAILED): "{{error_code}}"}, "ops"),
    Panel(
        "Attempts lost",
        {
            rate("attempts_failed", "error_code"): "{{error_code}}",
            f"sum by (reason) (rate(timeripple_engine_losses_total[{JOB_RATE}]))": "engine {{reason}}",
        },
        "ops",
    ),
    Panel(
        "Second tries that succeeded",
        {rate("second_tries", "reason, remedy"): "{{reason}} {{remedy}}"},
        "ops",
    ),
    Panel(
        "Webhooks", {f"sum by (outcome) (rate(timeripple_webhook_attempts_total[{JOB_RATE}]))": "{{outcome}}"}, "ops"
    ),
    Panel(
        "Memory of processes",
        {
            f"timeripple_{part}_process_resident_memory_bytes": f"{part} {{{{instance}}}}"
            for part in ("server", "worker", "engine")
        },
        "bytes",
    ),
    Panel("Versions", {"timeripple_build_info": "{{instance}} {{timeripple}} torch {{torch}}"}),
    Panel(
        "GPU memory in use",
        {f"{_GPU} (timeripple_gpu_memory_used_bytes / timeripple_gpu_memory_size_bytes)": _GPU_NAME},
        "percentunit",
        largest=1,
    ),
    Panel("GPU utilization", {f"{_GPU} (timeripple_gpu_utilization_ratio)": _GPU_NAME}, "percentunit", largest=1),
    Panel("GPU temperature", {f"{_GPU} (timeripple_gpu_temperature_celsius)": _GPU_NAME}, "celsius"),
]
