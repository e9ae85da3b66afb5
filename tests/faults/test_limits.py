"""Memory, disk, time and numbers that run out: a clear error, and the next job is as good as ever."""

import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from fleet import Fleet, until
from safetensors.torch import load_file, save_file

from ripple_core.contract.models import BUILTIN_MODEL_FOLDER

MEBIBYTE = 2**20


def failed(fleet: Fleet, job_id: str, code: str) -> str:
    """The message of a job that failed with this code and left no file."""
    job = fleet.wait(job_id)
    assert (job["status"], job["error"] and job["error"]["code"]) == ("failed", code), job
    assert fleet.attempts_kept(job_id) == []
    assert fleet.client.get(f"/jobs/{job_id}/video").json()["code"] == "no_video"
    return str(job["error"]["message"])


def test_a_request_that_exceeds_the_memory_says_what_would_fit(start_fleet: Callable[..., Fleet]) -> None:
    fleet = start_fleet(1)
    fleet.check_one_result(fleet.submit())
    engine = fleet.workers[0].engine
    limit = engine.memory_info().vms + 300 * MEBIBYTE
    resource.prlimit(engine.pid, resource.RLIMIT_AS, (limit, limit))
    message = failed(fleet, fleet.submit(width=256, height=256, num_frames=65, num_inference_steps=1), "out_of_memory")
    assert "256x256" in message
    assert "Ask for" in message
    fleet.check_one_result(fleet.submit())
    assert fleet.workers[0].engine.pid == engine.pid, "the process lives on"


def test_frames_that_are_no_numbers_are_never_delivered(start_fleet: Callable[..., Fleet], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUILTIN_MODEL_FOLDER, tmp_path / "model"))
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    whole = load_file(weights)
    save_file({name: tensor * float("nan") for name, tensor in whole.items()}, weights)
    fleet = start_fleet(1, RIPPLE_MODEL=str(folder))
    failed(fleet, fleet.submit(), "invalid_output")
    # Mended, it is loaded by the next process.
    save_file(whole, weights)
    fleet.workers[0].kill("engine")
    fleet.check_one_result(fleet.submit())


def test_a_stage_that_hangs_is_ended_and_reported(start_fleet: Callable[..., Fleet]) -> None:
    fleet = start_fleet(1, RIPPLE_STALL_SECONDS="3")
    hung, healthy = fleet.submit(num_inference_steps=60), fleet.submit()
    fleet.wait_for_stage(hung, "denoise", step=1)
    engine = fleet.workers[0].engine
    engine.suspend()
    message = failed(fleet, hung, "stalled")
    assert "stage denoise" in message
    fleet.check_one_result(healthy)
    until(lambda: not psutil.pid_exists(engine.pid), "the hung process is gone")


@pytest.mark.parametrize("size", ["100k", "48k"])
def test_a_full_disk_fails_the_job_and_leaves_no_part_of_a_video(
    start_fleet: Callable[..., Fleet], small_disk: Callable[[Path, str], None], size: str
) -> None:
    fleet = start_fleet(0)
    small_disk(fleet.videos, size)
    fleet.start_worker()
    # Random pictures, nearly: the first steps of many frames compress badly.
    message = failed(
        fleet, fleet.submit(width=128, height=128, num_inference_steps=1, output={"format": "zip"}), "storage_full"
    )
    assert "delete videos or add storage" in message
    assert list(fleet.videos.rglob("*.zip")) == []
    fleet.check_one_result(fleet.submit())
