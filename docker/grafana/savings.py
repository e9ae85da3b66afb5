"""The dashboard "Compute savings"."""

from grafana.panel import Panel, increase, quantiles, rate

_DENSE, _EXECUTED = "attention_dense_flops", "attention_executed_flops"
_ESTIMATE, _TOOK = "dense_denoise_estimate_seconds", "estimated_denoise_seconds"
_HOW_ESTIMATED = (
    "What denoising would have taken without reuse, over what it took. Each job's own dense steps tell: the lower "
    "median of their times without the first step's, for all steps; where a quality check rendered the dense twin, its "
    "measured time. A model's first jobs after loading, jobs with no other dense step, and those with a step cache are "
    "left out."
)
_DIAL = "up to {{aggressiveness}}"

PANELS = [
    Panel(
        "Attention work saved", {f"1 - {increase(_EXECUTED)} / {increase(_DENSE)}": "saved"}, "percentunit", "stat", 6
    ),
    Panel("FLOPs saved", {f"{increase(_DENSE)} - {increase(_EXECUTED)}": "saved"}, "sishort", "stat", 6),
    Panel(
        "Denoising against dense",
        {f"{increase(_ESTIMATE)} / {increase(_TOOK)}": "times as fast"},
        "none",
        "stat",
        6,
        _HOW_ESTIMATED,
    ),
    Panel("Video made", {increase("video_seconds"): "made"}, "s", "stat", 6),
    Panel(
        "Savings by model",
        {f"1 - {rate(_EXECUTED, 'model')} / {rate(_DENSE, 'model')}": "{{model}}"},
        "percentunit",
        width=12,
        largest=1,
    ),
    Panel(
        "Savings by aggressiveness",
        {f"1 - {rate(_EXECUTED, 'aggressiveness')} / {rate(_DENSE, 'aggressiveness')}": _DIAL},
        "percentunit",
        width=12,
        largest=1,
    ),
    Panel("Attention FLOPs", {rate(_DENSE): "dense", rate(_EXECUTED): "executed"}, "flops", width=12),
    Panel(
        "Denoising against dense, by aggressiveness",
        {f"{rate(_ESTIMATE, 'aggressiveness')} / {rate(_TOOK, 'aggressiveness')}": _DIAL},
        "none",
        width=12,
        description=_HOW_ESTIMATED,
    ),
    Panel("Savings of a job", quantiles("timeripple_job_savings_ratio"), "percentunit", width=6, largest=1),
    Panel("Aggressiveness asked for", quantiles("timeripple_job_aggressiveness_ratio"), "none", width=6, largest=1),
    Panel(
        "Jobs by what ran",
        {rate("attention_jobs", "mode, backend"): "{{mode}} {{backend}}"},
        "ops",
        width=6,
    ),
    Panel(
        "Calls that fell back to dense",
        {rate("attention_fallback_calls", "reason"): "{{reason}}"},
        "ops",
        width=6,
    ),
]
