"""What a request may ask for, through API, queue, worker and store."""

import base64
import io
import json
import shutil
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
import torch
from PIL import Image
from redis import Redis
from safetensors.torch import save_file
from standardwebhooks import Webhook

from ripple_core.contract.models import BUILTIN_MODEL_FOLDER
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
        # Closed, for an embedded Redis runs on while it has clients.
        with Redis.from_url(f"unix://{data_dir}/redis/redis.sock") as redis:
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


@pytest.fixture(scope="module")
def image_up(start_up: StartUp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An image-to-video model: the built-in one as Wan 2.2 5B does it; and a LoRA that fits it."""
    model = Path(shutil.copytree(BUILTIN_MODEL_FOLDER, tmp_path_factory.mktemp("model") / "builtin"))
    index = model / "model_index.json"
    changes = {"_class_name": "WanImageToVideoPipeline", "expand_timesteps": True}
    index.write_text(json.dumps(json.loads(index.read_text()) | changes))
    loras = tmp_path_factory.mktemp("loras")
    width = json.loads((model / "transformer" / "config.json").read_text())
    size = width["num_attention_heads"] * width["attention_head_dim"]
    name = "transformer.blocks.0.attn1.to_q.lora_{}.weight"
    weights = {name.format("A"): torch.ones(2, size), name.format("B"): torch.ones(size, 2)}
    save_file(weights, loras / "style.safetensors")
    settings = {"RIPPLE_MODEL": str(model), "RIPPLE_LORA_DIR": str(loras)}
    with start_up(tmp_path_factory.mktemp("up") / "data", settings) as up:
        yield up


def png(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (50, 40), colour).save(file, "PNG")
    return file.getvalue()


def digest(up: Any, answer: Any) -> str:
    assert answer.status_code == 202, answer.text
    job = up.wait(answer.json()["id"])
    assert job["status"] == "succeeded", job
    return str(job["metrics"]["output"]["sha256"])


FORM = {"prompt": "a red circle", "width": "64", "height": "64", "num_inference_steps": "2", "seed": "1"}


def test_a_video_begins_from_the_image_that_was_sent(image_up: Any) -> None:
    """As a file whatever its name, as a data URL, and through OpenAI's API."""
    post = image_up.client.post
    red, blue = png((200, 40, 40)), png((40, 40, 200))
    by_file = digest(image_up, post("/generate", data=FORM, files={"image": ("notes.txt", red)}))
    assert digest(image_up, post("/generate", data=FORM, files={"image": ("b.png", blue)})) != by_file
    url = f"data:image/png;base64,{base64.b64encode(red).decode()}"
    assert digest(image_up, post("/generate", data=FORM | {"image": url})) == by_file
    video = post("/v1/videos", data=FORM, files={"input_reference": ("x", red)}).json()
    first = image_up.wait(video["id"])
    assert first["metrics"]["output"]["sha256"] == by_file
    remix = post(f"/v1/videos/{video['id']}/remix", json={"prompt": FORM["prompt"]}).json()
    assert image_up.wait(remix["id"])["metrics"]["output"]["sha256"] == by_file, "the image is taken over"
    kept = image_up.client.get(f"/jobs/{first['id']}/image")
    assert (kept.headers["content-type"], kept.headers["x-content-type-options"]) == ("image/png", "nosniff")
    assert digest(image_up, post("/generate", data=FORM, files={"image": ("kept", kept.content)})) == by_file


def test_an_image_that_is_missing_is_asked_for(image_up: Any) -> None:
    assert image_up.client.get("/models").json()["models"][0]["takes_image"]
    estimate = image_up.client.post("/generate/estimate", data=FORM)
    assert (estimate.status_code, estimate.json()["request"]["image_sha256"]) == (200, None), "it costs the same"
    answer = image_up.client.post("/generate", data=FORM)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "image")


def test_a_large_image_is_taken(image_up: Any) -> None:
    noise = Image.effect_noise((2400, 1800), 100).convert("RGB")
    file = io.BytesIO()
    noise.save(file, "PNG")
    assert 4 * 1024**2 < len(file.getvalue()) < 10 * 1024**2
    assert digest(image_up, image_up.client.post("/generate", data=FORM, files={"image": ("x", file.getvalue())}))


def test_a_lora_is_on_for_its_own_job_only(image_up: Any) -> None:
    def generate(**loras: str) -> str:
        files = {"image": ("x", png((200, 40, 40)))}
        return digest(image_up, image_up.client.post("/generate", data=FORM | loras, files=files))

    assert image_up.client.get("/models").json()["models"][0]["loras"] == ["style"]
    plain = generate()
    styled = generate(loras='[{"name": "style", "scale": 2.0}]')
    assert styled != plain
    assert generate() == plain
    assert generate(**{"loras[0][name]": "style", "loras[0][scale]": "2.0"}) == styled
