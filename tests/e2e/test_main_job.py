"""The main job through everything: API, Redis, worker, pipeline, MP4."""

import hashlib
import json
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import imageio_ffmpeg
import psutil
import pytest
from scraped import Scrape


def test_a_prompt_becomes_a_video_with_honest_metrics(up: Any, tmp_path: Path) -> None:
    job = up.wait(up.submit(seed=3, reuse={"aggressiveness": 1.0, "mode": "ripple"}, num_inference_steps=10))
    assert job["status"] == "succeeded", job
    video = up.client.get(job["links"]["video"])
    path = tmp_path / "video.mp4"
    path.write_bytes(video.content)
    assert imageio_ffmpeg.count_frames_and_secs(str(path))[0] == 17
    metrics = job["metrics"]
    output = metrics["output"]
    assert output["sha256"] == hashlib.sha256(video.content).hexdigest()
    assert output["bytes"] == len(video.content)
    latency = metrics["latency_s"]
    assert latency["total"] >= sum(seconds for stage, seconds in latency.items() if stage != "total") - 1e-3
    attention = metrics["attention"]
    assert (attention["mode"], attention["dense_steps"], attention["fallbacks"]) == ("ripple", 1, [])
    # 9x8x8 tokens, 3 heads of 64, 6 layers, 10 steps, 2 passes; 4 FLOPs for each pair of tokens and channel.
    assert attention["dense_flops"] == 4 * 576**2 * 3 * 64 * 6 * 10 * 2
    assert attention["executed_flops"] < attention["dense_flops"]
    assert attention["savings"] == pytest.approx(1 - attention["executed_flops"] / attention["dense_flops"])


def test_aggressiveness_0_saves_exactly_nothing(up: Any) -> None:
    job = up.wait(up.submit(reuse={"aggressiveness": 0}))
    attention = job["metrics"]["attention"]
    assert (attention["mode"], attention["savings"], attention["score_savings"]) == ("dense", 0.0, 0.0)
    assert attention["executed_flops"] == attention["dense_flops"] > 0


def test_the_second_of_two_jobs_needs_no_loading_and_the_seed_decides(up: Any) -> None:
    jobs = [up.wait(job_id) for job_id in [up.submit(seed=9) for _ in range(2)]]
    assert [job["status"] for job in jobs] == ["succeeded"] * 2
    assert jobs[1]["metrics"]["latency_s"]["load"] == 0
    assert jobs[0]["metrics"]["output"]["sha256"] == jobs[1]["metrics"]["output"]["sha256"]


def test_cancel_in_the_middle_stops_the_work(up: Any) -> None:
    job_id = up.submit(num_inference_steps=200)
    while up.client.get(f"/jobs/{job_id}").json()["progress"]["step"] < 2:
        time.sleep(0.05)
    assert up.client.delete(f"/jobs/{job_id}").status_code == 202
    job = up.wait(job_id)
    assert job["status"] == "cancelled"
    assert job["progress"]["step"] < 200
    assert up.client.get(f"/jobs/{job_id}/video").json()["code"] == "no_video"
    assert up.wait(up.submit())["status"] == "succeeded"


def test_events_report_every_denoising_step(up: Any) -> None:
    job_id = up.submit(num_inference_steps=6)
    with up.client.stream("GET", f"/jobs/{job_id}/events", timeout=120) as answer:
        text = "".join(answer.iter_text())
    blocks = [
        dict(line.split(": ", 1) for line in block.split("\n")) for block in text.split("\n\n") if "data" in block
    ]
    states = [json.loads(block["data"])["status"] for block in blocks if block["event"] == "state"]
    assert states == ["queued", "running", "succeeded"]
    steps = [json.loads(block["data"]) for block in blocks if block["event"] == "progress"]
    assert [p["step"] for p in steps if p["stage"] == "denoise"] == list(range(7))


def test_metrics_grow_with_finished_jobs(up: Any) -> None:
    up.wait(up.submit())
    scraped = Scrape(up.client.get("/metrics").text)
    assert scraped.value("timeripple_jobs_ended_total", status="succeeded") >= 1
    assert sum(scraped.values("timeripple_workers")) == 1
    dense, executed = (
        sum(scraped.values(f"timeripple_attention_{kind}_flops_total")) for kind in ("dense", "executed")
    )
    assert 0 < executed < dense


StartUp = Callable[[Path], AbstractContextManager[Any]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_restart_loses_nothing_and_leaves_no_process(start_up: StartUp, tmp_path: Path, number: int) -> None:
    """A finished, a running and a queued job when `up` is stopped: all are there, and done, after the next `up`."""
    data_dir = tmp_path / "data"
    with start_up(data_dir) as up:
        done = up.wait(up.submit())
        running, queued = up.submit(num_inference_steps=60), up.submit()
        up.wait(running, status="running")
        family = psutil.Process(up.process.pid).children(recursive=True)
        assert up.stop(number) == 0
        assert not [process for process in family if process.is_running() and process.status() != "zombie"]
    with start_up(data_dir) as up:
        assert up.client.get(f"/jobs/{done['id']}").json() == done
        assert up.client.get(done["links"]["video"]).status_code == 200
        assert [up.wait(job_id)["status"] for job_id in (running, queued)] == ["succeeded"] * 2


def test_a_worker_killed_in_the_middle_ends_up_and_the_next_up_finishes_its_job(
    start_up: StartUp, tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    with start_up(data_dir) as up:
        job_id = up.submit(num_inference_steps=30)
        up.wait(job_id, status="running")
        # The worker is the one with a child of its own, which owns the device.
        (worker,) = [child for child in psutil.Process(up.process.pid).children() if child.children()]
        worker.kill()
        assert up.process.wait(timeout=60) == 1
        assert "The worker ended with exit code -9" in up.log.read_text()
    with start_up(data_dir) as up:
        job = up.wait(job_id)
        assert job["status"] == "succeeded", job


def test_two_run_side_by_side_but_not_on_one_folder(start_up: StartUp, up: Any, tmp_path: Path, ripple: Any) -> None:
    data_dir = tmp_path / "data"
    with start_up(data_dir) as second:
        job_id = second.submit()
        assert up.client.get(f"/jobs/{job_id}").status_code == 404
        assert second.wait(job_id)["status"] == "succeeded"
        refused = ripple("up", "--port", "1", "--data-dir", str(data_dir))
        assert refused.returncode == 1
        port = str(second.client.base_url.port)
        taken = ripple("up", "--port", port, "--data-dir", str(tmp_path / "other"))
        assert (taken.returncode, taken.stderr.count("\n")) == (1, 1)
        assert f"Port {port} on 127.0.0.1 cannot be used" in taken.stderr
        free = ripple("up", "--port", str(8000 + 17), "--data-dir", str(data_dir))
        assert "is in use by another `ripple up`" in free.stderr


def test_the_video_plays_what_generate_local_writes(up: Any, ripple: Any, tmp_path: Path) -> None:
    """The same request through the server and in one process gives the same file."""
    prompt = "a red circle moving left on a dark background"
    arguments = ("--seed", "4", "--steps", "4")
    done = ripple("generate", prompt, "--local", "-o", "local.mp4", *arguments)
    assert done.returncode == 0, done.stderr
    url = str(up.client.base_url)
    done = ripple("generate", prompt, "--server", url, "-o", "server.mp4", *arguments)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "local.mp4").read_bytes() == (tmp_path / "server.mp4").read_bytes()
    assert "saved of all attention" in done.stdout


def test_serve_and_worker_share_the_folders_redis_and_the_last_one_stops_it(
    tmp_path: Path, ripple_process: Callable[..., Any], unused_port: int
) -> None:
    data_dir = tmp_path / "data"
    port = str(unused_port)
    serve = ripple_process("serve", "--port", port, "--data-dir", str(data_dir))
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
    until_answers(client, "/healthz")
    assert client.get("/readyz").json()["code"] == "not_ready"
    job_id = client.post("/generate", json={"prompt": "a red circle", "num_inference_steps": 2}).json()["id"]
    worker = ripple_process("worker", "--data-dir", str(data_dir))
    until_answers(client, "/readyz")
    while client.get(f"/jobs/{job_id}").json()["status"] != "succeeded":
        time.sleep(0.1)
    socket_file = data_dir / "redis" / "redis.sock"
    for process, redis_lives_on in ((serve, True), (worker, False)):
        process.terminate()
        assert process.wait(timeout=60) == 0
        assert socket_file.exists() == redis_lives_on


def until_answers(client: httpx.Client, path: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if client.get(path).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{path} does not answer")
