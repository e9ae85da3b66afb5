"""OpenAI's Videos API, driven by the official `openai` package."""

import io
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from PIL import Image

from ripple_core.contract.job import JobError, JobStatus, Progress

# The package calls its own video methods deprecated since its maker ended its service.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")


@pytest.fixture
def client(api: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{api.client.base_url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def when_queued(api: Any, do: Any) -> threading.Thread:
    def work() -> None:
        while not (queued := api.store.ids(JobStatus.QUEUED)):
            time.sleep(0.02)
        do(queued[0])

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_create_takes_openais_parameters_and_ours(client: openai.OpenAI, api: Any) -> None:
    video = client.videos.create(
        prompt="a red circle moving left",
        model="timeripple/builtin",  # type: ignore[arg-type]
        size="64x96",  # type: ignore[arg-type]
        seconds="2",  # type: ignore[arg-type]
        extra_body={
            "seed": 7,
            "num_inference_steps": 4,
            "guidance_scale": 2.5,
            "negative_prompt": "blue",
            "reuse": {"aggressiveness": 0.75, "mode": "ripple"},
        },
    )
    assert (video.object, video.status, video.progress) == ("video", "queued", 0)
    assert (video.size, video.prompt, video.model) == ("64x96", "a red circle moving left", "timeripple/builtin")
    # 2 s at 8 frames a second are 16 frames; the model makes 15 or 17.
    assert float(video.seconds) == pytest.approx(2, abs=0.13)
    request = api.client.get(f"/jobs/{video.id}").json()["request"]
    assert (request["seed"], request["num_inference_steps"], request["guidance_scale"]) == (7, 4, 2.5)
    assert request["reuse"] == {"aggressiveness": 0.75, "mode": "ripple"}
    assert (request["width"], request["height"], request["negative_prompt"]) == (64, 96, "blue")


def test_create_and_poll_waits_for_the_end(client: openai.OpenAI, api: Any) -> None:
    worker = when_queued(api, api.finish)
    video = client.videos.create_and_poll(prompt="x")
    worker.join()
    assert (video.status, video.progress, video.error) == ("completed", 100, None)
    assert video.completed_at
    assert video.expires_at
    assert video.expires_at > video.completed_at >= video.created_at


def test_a_failed_job_says_why(client: openai.OpenAI, api: Any) -> None:
    worker = when_queued(api, api.fail)
    video = client.videos.create_and_poll(prompt="x")
    worker.join()
    assert video.status == "failed"
    assert video.error
    assert (video.error.code, video.error.message) == ("out_of_memory", "too big")


def test_retrieve_follows_the_job_of_either_api(client: openai.OpenAI, api: Any) -> None:
    job_id = api.submit()
    assert client.videos.retrieve(job_id).status == "queued"
    owner = api.claim(job_id)
    api.store.set_progress(job_id, owner, Progress(stage="denoise", step=1, total_steps=2, fraction=0.42))
    raw = client.videos.with_raw_response.retrieve(job_id)
    assert (raw.parse().status, raw.parse().progress) == ("in_progress", 42)
    assert 500 <= int(raw.headers["openai-poll-after-ms"]) <= 10_000
    api.store.fail(job_id, owner, JobError(code="x", message="y"))
    assert client.videos.retrieve(job_id).status == "failed"


def test_list_pages_both_ways(client: openai.OpenAI, api: Any) -> None:
    ids = sorted(api.submit() for _ in range(5))
    assert [video.id for video in client.videos.list(limit=2)] == ids[::-1], "the package asks for page after page"
    assert [video.id for video in client.videos.list(limit=2, order="asc")] == ids
    page = client.videos.list(limit=2, after=ids[2])
    assert [video.id for video in page.data] == [ids[1], ids[0]]
    assert not page.has_more
    assert client.videos.list(after=ids[0]).data == []


@pytest.mark.parametrize(
    ("variant", "media_type"), [("video", "video/mp4"), ("thumbnail", "image/webp"), ("spritesheet", "image/jpeg")]
)
def test_download_content(client: openai.OpenAI, api: Any, variant: Any, media_type: str) -> None:
    job_id = api.submit()
    api.finish(job_id)
    answer = client.videos.download_content(job_id, variant=variant)
    assert answer.read() == b"0123456789"
    assert answer.response.headers["content-type"] == media_type


def test_content_before_its_time_is_a_conflict(client: openai.OpenAI, api: Any) -> None:
    with pytest.raises(openai.ConflictError) as error:
        client.videos.download_content(api.submit())
    assert error.value.code == "video_not_ready"


def test_delete_removes_an_ended_video(client: openai.OpenAI, api: Any) -> None:
    job_id = api.submit()
    api.finish(job_id)
    answer = client.videos.delete(job_id)
    assert (answer.id, answer.object, answer.deleted) == (job_id, "video.deleted", True)
    assert not (api.videos / job_id).exists()
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(job_id)
    assert api.client.get(f"/jobs/{job_id}").status_code == 404


def test_delete_cancels_a_queued_video(client: openai.OpenAI, api: Any) -> None:
    assert client.videos.delete(api.submit()).deleted


def test_delete_waits_for_a_running_one_to_stop(client: openai.OpenAI, api: Any) -> None:
    job_id = api.submit()
    owner = api.claim(job_id)

    def stop_when_asked() -> None:
        while not api.store.should_stop(job_id, owner):
            time.sleep(0.02)
        api.store.finish_cancel(job_id, owner)

    worker = threading.Thread(target=stop_when_asked)
    worker.start()
    assert client.videos.delete(job_id).deleted
    worker.join()


def test_delete_does_not_claim_that_a_job_is_gone_which_still_runs(client: openai.OpenAI, api: Any) -> None:
    job_id = api.submit()
    owner = api.claim(job_id)
    with pytest.raises(openai.ConflictError) as error:
        client.videos.delete(job_id)
    assert error.value.code == "still_stopping"
    assert error.value.response.headers["retry-after"] == "5"
    assert api.store.should_stop(job_id, owner)


def test_remix_takes_over_everything_but_the_prompt(client: openai.OpenAI, api: Any) -> None:
    original = api.submit(seed=3, width=64, height=96, reuse={"aggressiveness": 0.25, "mode": "channel"})
    remix = client.videos.remix(original, prompt="a blue square")
    assert (remix.remixed_from_video_id, remix.prompt, remix.status) == (original, "a blue square", "queued")
    before, after = (api.client.get(f"/jobs/{job_id}").json()["request"] for job_id in (original, remix.id))
    assert after == before | {"prompt": "a blue square"}
    assert client.videos.retrieve(remix.id).remixed_from_video_id == original


def test_an_input_reference_is_judged_by_what_it_holds(client: openai.OpenAI) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    with pytest.raises(openai.UnprocessableEntityError, match="from text alone"):
        client.videos.create(prompt="x", input_reference=("a.txt", picture.getvalue()))
    with pytest.raises(openai.UnprocessableEntityError, match="not a picture"):
        client.videos.create(prompt="x", input_reference=("a.png", b"no picture"))


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"size": "64"}, "size", "1280x720"),
        ({"size": "64x97"}, "height", "nearest: 96 or 112"),
        ({"seconds": "9"}, "seconds", "at most 8.125 s"),
        ({"seconds": "0"}, "seconds", "more than 0"),
        ({"seconds": "a lot"}, "seconds", "more than 0"),
        ({"model": "sora-2"}, "model", "timeripple/builtin"),
        ({"extra_body": {"seed": -1}}, "seed", "0 to"),
        ({"extra_body": {"stpes": 4}}, "stpes", "known are"),
        ({"size": "64x64", "extra_body": {"width": 64}}, "size", "width and height"),
        ({"seconds": "2", "extra_body": {"num_frames": 17}}, "seconds", "num_frames"),
    ],
    ids=str,
)
def test_errors_have_openais_shape(client: openai.OpenAI, fields: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match=says) as error:
        client.videos.create(prompt="x", **fields)
    assert error.value.param == param
    assert error.value.type == "invalid_request_error"
    assert error.value.code == ("unknown_model" if param == "model" else "invalid_request")


def test_json_says_the_same_as_a_form(api: Any) -> None:
    answer = api.client.post("/v1/videos", json={"prompt": "x", "size": "64x64", "seconds": 2, "seed": 1})
    assert (answer.status_code, answer.json()["size"]) == (200, "64x64")


@pytest.mark.parametrize("path", ["/v1/videos/x", "/v1/videos/x/content", "/v1/nowhere"])
def test_what_is_not_there_is_an_error_in_openais_shape(api: Any, path: str) -> None:
    answer = api.client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


def test_a_retry_with_the_same_idempotency_key_makes_no_second_video(client: openai.OpenAI) -> None:
    headers = {"Idempotency-Key": "once"}
    first = client.videos.create(prompt="x", extra_headers=headers)
    assert client.videos.create(prompt="x", extra_headers=headers).id == first.id


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["timeripple/builtin"]
