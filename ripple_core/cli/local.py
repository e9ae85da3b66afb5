"""`ripple generate --local`: the pipeline in this process, no queue."""

import time
from collections.abc import Callable
from pathlib import Path

from ripple_core.contract.job import Progress
from ripple_core.contract.metrics import JobMetrics
from ripple_core.contract.models import find_model
from ripple_core.contract.request import GenerateRequest
from ripple_core.contract.validate import resolve


def generate_locally(
    model: str, request: GenerateRequest, path: Path, on_progress: Callable[[Progress], None]
) -> JobMetrics:
    """Load the model, generate one video, write it to `path` when complete.

    Raises:
        RippleError: for an unknown model, a wrong request or a failing pipeline.
    """
    began = time.monotonic()
    spec = find_model(model)
    resolved = resolve(request, spec)
    on_progress(Progress(stage="load", total_steps=resolved.num_inference_steps))
    load_began = time.monotonic()

    from ripple_core.generate import generate_video, load_model

    loaded = load_model(spec)
    load_seconds = time.monotonic() - load_began
    temporary = path.with_name(f".{path.stem}.partial.mp4")
    try:
        metrics = generate_video(loaded, resolved, temporary, on_progress)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    latency = metrics.latency_s.model_copy(
        update={"load": load_seconds, "total": time.monotonic() - began},
    )
    return metrics.model_copy(update={"latency_s": latency})
