"""What a request may ask for, through API, queue, worker and store."""

import io
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest
from PIL import Image
from redis import Redis
from standardwebhooks import Webhook

from ripple_core.contract.webhooks import webhook_secret

StartUp = Callable[..., AbstractContextManager[Any]]


@pytest.mark.parametrize(
    ("output", "media_type"),
    [
        ({"format": "mp4", "crf": 30}, "video/mp4"),
        ({"format": "webm"}, "video/webm"),
        ({"format": "gif"}, "image/gif"),
        ({"format": "zip"}, "application/zip"),
    ],
    ids=lambda value: value["format"] if isinstance(value, dict) else None,
)
def test_every_format_comes_out_with_its_pictures(
    up: Any, tmp_path: Path, output: dict[str, Any], media_type: str
) -> None:
    job = up.wait(up.submit(output=output, num_frames=5))
    assert job["status"] == "succeeded", job
    answer = up.client.get(job["links"]["video"])
    assert answer.headers["content-type"] == media_type
    assert len(answer.content) == job["metrics"]["output"]["bytes"]
    suffix = output["format"]
    assert answer.headers["content-disposition"].endswith(f'.{suffix}"')
    if suffix == "zip":
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.namelist() == [f"frame_{index:05}.png" for index in range(5)]
    else:
        path = tmp_path / f"video.{suffix}"
        path.write_bytes(answer.content)
        assert imageio_ffmpeg.count_frames_and_secs(str(path))[0] == 5
    for kind, picture in (("thumbnail", "WEBP"), ("spritesheet", "JPEG")):
        content = up.client.get(job["links"][kind]).content
        assert Image.open(io.BytesIO(content)).format == picture


def test_a_quality_check_compares_with_the_dense_twin(up: Any) -> None:
    reuse = {"aggressiveness": 1.0, "mode": "ripple"}
    job = up.wait(up.submit(quality_check=True, reuse=reuse, seed=3, num_inference_steps=8))
    quality = job["metrics"]["quality"]
    assert not quality["identical"]
    assert 10 < quality["psnr_db"] < 80
    assert 0 < quality["ssim"] < 1
    assert job["metrics"]["latency_s"]["quality_check"] > quality["dense_denoise_s"] > 0
    untouched = up.wait(up.submit(quality_check=True, reuse={"aggressiveness": 0}))["metrics"]["quality"]
    assert (untouched["identical"], untouched["psnr_db"], untouched["ssim"]) == (True, None, 1.0)


def test_an_estimate_learns_from_the_jobs_that_ran(up: Any) -> None:
    asked = {"prompt": "a red circle", "width": 64, "height": 64, "num_inference_steps": 4, "reuse": {"mode": "ripple"}}
    job = up.wait(up.submit(**asked))
    # The server may go by what it read of the history a moment ago.
    while (body := up.client.post("/generate/estimate", json=asked).json())["estimate"]["executed_flops"] is None:
        time.sleep(0.2)
    attention = job["metrics"]["attention"]
    assert body["estimate"]["dense_flops"] == attention["dense_flops"]
    assert body["estimate"]["executed_flops"] == pytest.approx(attention["executed_flops"], rel=0.3)
    assert 0 < body["estimate"]["seconds"] < 60
    assert body["queue_wait_s"] == 0


def test_waiting_gives_the_finished_job(up: Any) -> None:
    body = {"prompt": "a red circle", "width": 64, "height": 64, "num_inference_steps": 2, "n": 2}
    answer = up.client.post("/generate", json=body, headers={"Prefer": "wait=100"}, timeout=120)
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
    statuses = [up.client.get(f"/jobs/{job_id}").json()["status"] for job_id in answer.json()["batch"]]
    assert statuses == ["succeeded"] * 2


class Receiver(HTTPServer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.arrived = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((dict(self.headers.items()), body))
        self.send_response(204)
        self.end_headers()
        self.server.arrived.set()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_webhook_is_told_signed_and_its_link_works(start_up: StartUp, tmp_path: Path, receiver: Receiver) -> None:
    data_dir = tmp_path / "data"
    with start_up(data_dir, {"RIPPLE_WEBHOOK_ALLOW": "127.0.0.1"}) as up:
        job_id = up.submit(webhook={"url": f"http://127.0.0.1:{receiver.server_port}/done"}, num_inference_steps=2)
        assert receiver.arrived.wait(120)
        headers, body = receiver.received[0]
        redis = Redis.from_url(f"unix://{data_dir}/redis/redis.sock")
        told = Webhook(webhook_secret(redis, None)).verify(body.decode(), headers)
        assert (told["type"], told["data"]["id"]) == ("video.completed", job_id)
        assert up.client.get(told["data"]["links"]["video"]).status_code == 200
        while (job := up.client.get(f"/jobs/{job_id}").json())["webhook"]["state"] != "delivered":
            time.sleep(0.05)
        assert [delivery["status_code"] for delivery in job["webhook"]["deliveries"]] == [204]
        refused = up.client.post("/generate", json={"prompt": "x", "webhook": {"url": "http://169.254.169.254/"}})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "webhook.url")


def test_an_idempotency_key_survives_a_restart(start_up: StartUp, tmp_path: Path) -> None:
    body = {"prompt": "a red circle", "width": 64, "height": 64, "num_inference_steps": 2}
    ids = []
    for _ in range(2):
        with start_up(tmp_path / "data") as up:
            answer = up.client.post("/generate", json=body, headers={"Idempotency-Key": "once"})
            ids.append(answer.json()["id"])
    assert ids[0] == ids[1]
