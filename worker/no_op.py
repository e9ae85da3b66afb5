"""`python -m worker.no_op`: a worker that generates nothing, so that all the rest can be measured.

`ripple bench queue` starts it. Its child process answers at once, without torch: two reports of progress, then the
metrics of a video whose files are empty. Everything else is what `python -m worker` does.
"""

import os
from multiprocessing.connection import Connection

from ripple_core.child_process import die_with
from ripple_core.contract.job import Progress
from ripple_core.contract.metrics import (
    AttentionMetrics,
    DeviceMetrics,
    JobMetrics,
    LatencySeconds,
    LayerCount,
    OutputMetrics,
    StepCount,
)
from ripple_core.contract.request import ResolvedRequest
from ripple_core.contract.videos import SPRITESHEET, THUMBNAIL, video_file
from ripple_core.logs import configure_logging
from worker.loop import run_worker
from worker.messages import Ended, Finished, Generate, Idle, Loaded, Ready, Reported, Video
from worker.settings import WorkerSettings

# Records of jobs are as long as those of a model with so many layers.
_NUM_LAYERS = 30


def run_no_op_child(connection: Connection, _settings: WorkerSettings) -> None:
    """Answer Generate messages until the parent closes the pipe."""
    die_with(os.getppid())
    connection.send(Ready())
    loaded: tuple[str, ...] = ()
    try:
        while True:
            message = connection.recv()
            if isinstance(message, Generate):
                model = (message.videos[0].request.model,)
                if model != loaded:
                    connection.send(Loaded(model))
                    loaded = model
                _answer(connection, message)
    except (EOFError, BrokenPipeError):
        return


def _answer(connection: Connection, task: Generate) -> None:
    for video in task.videos:
        steps = video.request.num_inference_steps
        for stage in ("denoise", "mp4_encode"):
            connection.send(Reported(video.execution, Progress(stage=stage, step=steps, total_steps=steps)))
        _write_files(video)
        connection.send(Ended(video.execution, Finished(_metrics(video.request))))
    connection.send(Idle())


def _write_files(video: Video) -> None:
    for name in (video_file(video.request.output.format), THUMBNAIL, SPRITESHEET):
        (video.folder / name).write_bytes(b"")


def _metrics(request: ResolvedRequest) -> JobMetrics:
    """As long as a real video's, with nothing counted but what keeps the estimates from dividing by zero."""
    count = {"dense_flops": 1, "executed_flops": 1, "savings": 0.0}
    return JobMetrics(
        latency_s=LatencySeconds(denoise=0.001),
        attention=AttentionMetrics(
            **count,
            score_savings=0.0,
            mode="dense",
            aggressiveness=0.0,
            dense_steps=request.num_inference_steps,
            fallbacks=[],
            by_step=[StepCount(step=step, dense=True, **count) for step in range(request.num_inference_steps)],
            by_layer=[LayerCount(layer=layer, **count) for layer in range(_NUM_LAYERS)],
        ),
        device=DeviceMetrics(name="none", dtype="none", peak_memory_bytes=0),
        output=OutputMetrics(
            frames=request.num_frames,
            fps=request.fps,
            width=request.width,
            height=request.height,
            duration_s=request.num_frames / request.fps,
            bytes=0,
            sha256="",
        ),
    )


if __name__ == "__main__":
    settings = WorkerSettings()
    configure_logging(settings.log_level, settings.log_format)
    run_worker(settings, run_no_op_child)
