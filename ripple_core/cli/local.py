"""`ripple generate --local`: the pipeline in this process, no queue."""

import time
from collections.abc import Callable
from pathlib import Path

from ripple_core.contract.job import Progress
from ripple_core.contract.metrics import JobMetrics
from ripple_core.contract.models import find_model
from ripple_core.contract.request import GenerateRequest
from ripple_core.contract.validate import resolve
from ripple_core.contract.videos import staging_folder, video_file
from ripple_core.contract.whole_files import flush


def generate_locally(
    model: str, request: GenerateRequest, path: Path, on_progress: Callable[[Progress], None]
) -> JobMetrics:
    """Load the model, generate one video, write it to `path` when complete.

    Raises:
        RippleError: for an unknown model, a wrong request or a failing pipeline.
        OSError: when the video cannot be written.
    """
    began = time.monotonic()
    spec = find_model(model)
    resolved = resolve(request, spec)
    on_progress(Progress(stage="load", total_steps=resolved.num_inference_steps))
    load_began = time.monotonic()

    from ripple_core.generate import generate_video, load_model

    loaded = load_model(spec)
    load_seconds = time.monotonic() - load_began
    with staging_folder(path.parent, path.name) as folder:
        metrics = generate_video(loaded, resolved, folder, on_progress)
        video = folder / video_file(resolved.output.format)
        flush(video)
        video.replace(path)
    latency = metrics.latency_s.model_copy(
        update={"load": load_seconds, "total": time.monotonic() - began},
    )
    return metrics.model_copy(update={"latency_s": latency})
