"""POST /generate and what it refuses."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

# A white PNG.
ONE_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mP8/x8AAwMCAO+ip1sAAAAASUVORK5CYII="
)
GOOD = {"prompt": "a red circle moving left", "seed": 5, "reuse": {"aggressiveness": 0.25, "mode": "channel"}}


def test_a_job_is_accepted_stored_and_queued(api: Any) -> None:
    answer = api.client.post("/generate", json=GOOD)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == job["links"]["self"] == f"/jobs/{job['id']}"
    assert job["status"] == "queued"
    assert job["request"] == {
        "prompt": "a red circle moving left",
        "negative_prompt": "",
        "model": "timeripple/builtin",
        "width": 128,
        "height": 128,
        "num_frames": 17,
        "fps": 8,
        "num_inference_steps": 20,
        "guidance_scale": 3.0,
        "seed": 5,
        "reuse": {"aggressiveness": 0.25, "mode": "channel"},
        "image_sha256": None,
        "loras": [],
        "output": {"format": "mp4", "crf": None},
        "quality_check": False,
        "preview": False,
    }
    assert (job["error"], job["metrics"], job["links"]["video"]) == (None, None, None)
    assert api.client.get(answer.headers["Location"]).json() == job
    assert api.store.redis.llen("rq:queue:ripple-normal:timeripple/builtin") == 1


def test_an_omitted_seed_is_drawn_and_shown(api: Any) -> None:
    jobs = [api.client.post("/generate", json={"prompt": "x"}).json() for _ in range(3)]
    assert len({job["request"]["seed"] for job in jobs}) == 3


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"prompt": None}, "prompt", "string"),
        ({"prompt": " "}, "prompt", "1 to 2000 characters"),
        ({"prompt": "x" * 2001}, "prompt", "1 to 2000 characters"),
        ({"width": 63}, "width", "nearest: 48 or 64"),
        ({"height": 8}, "height", "16 to 4096"),
        ({"width": "64"}, "width", "integer"),
        ({"width": 64.5}, "width", "integer"),
        ({"num_frames": 16}, "num_frames", "nearest: 15 or 17"),
        ({"num_frames": 99}, "num_frames", "nearest: 65"),
        ({"fps": 0}, "fps", "1 to 120"),
        ({"num_inference_steps": 81}, "num_inference_steps", "at most 80 at this size"),
        ({"num_inference_steps": 41, "quality_check": True}, "num_inference_steps", "x 2 for the quality check"),
        ({"width": 256, "height": 256, "num_frames": 65}, "num_inference_steps", "at most 5 at this size"),
        ({"image": "data:image/png;base64,AAAA"}, "image", "known kind"),
        ({"image": "https://example.com/a.png"}, "image", "URLs are not fetched"),
        ({"image": ONE_PIXEL}, "image", "from text alone"),
        ({"loras": [{"name": "style"}]}, "loras.0.name", "known are: none on this server"),
        ({"loras": [{"name": "../style"}]}, "loras.0.name", "match pattern"),
        ({"loras": [{"name": "a"}] * 5}, "loras", "at most 4"),
        ({"output": {"format": "avi"}}, "output.format", "mp4, webm, gif, zip"),
        ({"output": {"format": "gif", "crf": 20}}, "output", "mp4 and webm"),
        ({"output": {"crf": 52}}, "output.crf", "0 to 51"),
        ({"n": 11}, "n", "1 to 10"),
        ({"priority": "urgent"}, "priority", "high, normal, low"),
        ({"num_inference_steps": 201}, "num_inference_steps", "1 to 200"),
        ({"guidance_scale": -1}, "guidance_scale", "0 to 30"),
        ({"seed": 2**53}, "seed", "0 to 9007199254740991"),
        ({"reuse": {"aggressiveness": 1.5}}, "reuse.aggressiveness", "0 to 1"),
        ({"reuse": {"mode": "fast"}}, "reuse.mode", "auto"),
        ({"reuse": {"speed": 1}}, "reuse.speed", "known are: aggressiveness, mode"),
        ({"agressiveness": 1}, "agressiveness", "known are: prompt, negative_prompt"),
        ({"model": "gpt"}, "model", "timeripple/builtin"),
    ],
    ids=str,
)
def test_a_wrong_field_is_named_with_what_is_allowed(api: Any, change: dict[str, Any], field: str, says: str) -> None:
    answer = api.client.post("/generate", json=GOOD | change)
    problem = answer.json()
    assert answer.status_code == problem["status"] == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["code"] == ("unknown_model" if field == "model" else "invalid_request")
    assert [item["field"] for item in problem["errors"]] == [field]
    assert says in problem["errors"][0]["message"]
    assert api.store.redis.keys("ripple:job*") == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(api: Any, number: str) -> None:
    body = f'{{"prompt": "x", "guidance_scale": {number}}}'
    answer = api.client.post("/generate", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "guidance_scale"


@pytest.mark.parametrize("model", [None, "builtin", "timeripple/builtin"])
def test_the_servers_own_model_goes_by_all_its_names(api: Any, model: str | None) -> None:
    answer = api.client.post("/generate", json=GOOD | {"model": model})
    assert (answer.status_code, answer.json()["request"]["model"]) == (202, "timeripple/builtin")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"\xff\xfe", b'{"prompt": "x",}', b"[" * 100_000, b'{"prompt": "\\ud800"}'],
    ids=["empty", "cut", "latin", "utf16", "comma", "deep", "half a character"],
)
def test_a_body_that_cannot_be_read_is_refused(api: Any, body: bytes) -> None:
    answer = api.client.post("/generate", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("kind", ["text/plain", ""])
def test_a_body_of_another_type_is_refused_with_those_that_would_do(api: Any, kind: str) -> None:
    answer = api.client.post("/generate", content=b'{"prompt": "x"}', headers={"content-type": kind})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "multipart/form-data" in answer.json()["detail"]


def test_an_endless_number_is_refused(api: Any) -> None:
    body = b'{"prompt": "x", "seed": 1' + b"0" * 5000 + b"}"
    answer = api.client.post("/generate", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)


@pytest.mark.parametrize(
    "form",
    [
        {"seed": "5", "reuse[aggressiveness]": "0.25", "reuse[mode]": "channel"},
        {"seed": "5", "reuse.aggressiveness": "0.25", "reuse.mode": "channel"},
        {"seed": "5", "reuse": '{"aggressiveness": 0.25, "mode": "channel"}'},
    ],
    ids=["brackets", "dots", "json"],
)
@pytest.mark.parametrize("multipart", [True, False])
def test_a_form_says_the_same_as_json(api: Any, form: dict[str, str], multipart: bool) -> None:
    fields = form | {"prompt": "a red circle moving left"}
    if multipart:
        answer = api.client.post("/generate", files={name: (None, value) for name, value in fields.items()})
    else:
        answer = api.client.post("/generate", data=fields)
    asked = api.client.post("/generate", json=GOOD).json()["request"]
    assert (answer.status_code, answer.json()["request"]) == (202, asked)


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"prompt": (None, "x"), "seed": (None, "many")}, "seed"),
        ({"prompt": (None, "x"), "reuse": (None, "{")}, "reuse"),
        ({"prompt": (None, "x"), "reuse": (None, "[" * 100_000)}, "reuse"),
        ({"prompt": (None, "x"), "loras[0][scale]": (None, "1")}, "loras.0.name"),
        ({"prompt": (None, "x"), "guidance_scale": (None, "NaN")}, "guidance_scale"),
        ({"prompt": (None, "x"), "reuse[speed]": (None, "1")}, "reuse.speed"),
        ({"prompt": (None, "x"), "seed": (None, "1"), "seed[a]": (None, "1")}, "seed[a]"),
        ({"prompt": ("a.txt", b"x")}, "prompt"),
        ({"prompt": (None, "x"), "image": ("a.png", b"not a picture")}, "image"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_field_of_a_form_is_named(api: Any, form: dict[str, Any], field: str) -> None:
    answer = api.client.post("/generate", files=form)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field), answer.text


def test_a_body_of_a_million_wrong_fields_is_refused_in_a_few_words(api: Any) -> None:
    body = json.dumps({f"a{number}": 1 for number in range(1_000_000)})
    answer = api.client.post("/generate", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body")
    few = api.client.post("/generate", json={"prompt": "x"} | {f"a{number}": 1 for number in range(5000)})
    assert (few.status_code, len(few.json()["errors"])) == (422, 50)


@pytest.mark.parametrize("name", [".".join("a" * 3000), "loras[" + "9" * 5000 + "][name]", "a" * 3000], ids=len)
def test_a_name_without_end_is_no_field(api: Any, name: str) -> None:
    answer = api.client.post("/generate", data={"prompt": "x", name: "1"})
    assert answer.status_code == 422


@pytest.mark.parametrize("url", ["https://xn--a.example.com/", "https://[::1", "https:///x", "https://\u0080.com/"])
def test_a_webhook_of_no_host_is_refused(api: Any, url: str) -> None:
    answer = api.client.post("/generate", json={"prompt": "x", "webhook": {"url": url}})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "webhook.url")


def test_all_wrong_fields_are_named_at_once(api: Any) -> None:
    answer = api.client.post("/generate", json={"prompt": "x", "width": 63, "height": 65, "num_frames": 16})
    assert {item["field"]: item["nearest"] for item in answer.json()["errors"]} == {
        "width": [48, 64],
        "height": [64, 80],
        "num_frames": [15, 17],
    }


@pytest.mark.parametrize("body", ["[]", '"x"', "null", "3"])
def test_a_body_that_is_no_object_is_refused(api: Any, body: str) -> None:
    answer = api.client.post("/generate", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("prompt", ["ein rötlicher Kreis", "红色圆圈", "🔴\u0000", "a" * 2000])
def test_any_text_is_a_prompt(api: Any, prompt: str) -> None:
    answer = api.client.post("/generate", json={"prompt": prompt})
    assert answer.status_code == 202
    assert api.client.get(answer.headers["Location"]).json()["request"]["prompt"] == prompt


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/generate", 405, "method_not_allowed"),
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/jobs/x", 404, "job_not_found"),
        ("GET", f"/jobs/{'0' * 28}", 404, "job_not_found"),
        ("GET", f"/jobs/{'0' * 28}/video", 404, "job_not_found"),
        ("GET", f"/jobs/{'0' * 28}/events", 404, "job_not_found"),
        ("DELETE", f"/jobs/{'0' * 28}", 404, "job_not_found"),
        ("GET", "/jobs/a:events", 404, "job_not_found"),
        ("GET", "/jobs?limit=0", 422, "invalid_request"),
        ("GET", "/jobs?status=done", 422, "invalid_request"),
        ("GET", "/jobs?cursor=x", 422, "invalid_request"),
    ],
)
def test_every_error_is_a_problem_with_a_code(api: Any, method: str, path: str, status: int, code: str) -> None:
    answer = api.client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]
    assert answer.json()["instance"] == path.partition("?")[0]


class TestIdempotency:
    """`Idempotency-Key`: retries of a client make no second job."""

    def post(self, api: Any, key: str, **fields: Any) -> Any:
        return api.client.post("/generate", json={"prompt": "x"} | fields, headers={"Idempotency-Key": key})

    def test_the_same_key_and_body_give_the_same_job(self, api: Any) -> None:
        first, second = self.post(api, "a"), self.post(api, "a")
        assert (first.status_code, second.status_code) == (202, 202)
        assert first.json()["id"] == second.json()["id"]
        assert first.json()["request"]["seed"] == second.json()["request"]["seed"], "a drawn seed is drawn once"
        assert len(api.client.get("/jobs").json()["jobs"]) == 1

    def test_the_same_key_with_another_body_is_a_conflict(self, api: Any) -> None:
        self.post(api, "a")
        answer = self.post(api, "a", seed=1)
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict")
        assert len(api.client.get("/jobs").json()["jobs"]) == 1

    def test_two_racing_posts_make_one_job(self, api: Any) -> None:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: self.post(api, "race"), range(16)))
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert len(api.client.get("/jobs").json()["jobs"]) == 1

    @pytest.mark.parametrize("key", ["", "x" * 256])
    def test_a_key_of_no_length_or_too_long_is_refused(self, api: Any, key: str) -> None:
        answer = self.post(api, key)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "idempotency-key")


def test_several_videos_are_as_many_jobs_with_seeds_that_count_up(api: Any) -> None:
    first = api.client.post("/generate", json=GOOD | {"n": 3}).json()
    assert first["batch"][0] == first["id"]
    jobs = [api.client.get(f"/jobs/{job_id}").json() for job_id in first["batch"]]
    assert [job["request"]["seed"] for job in jobs] == [5, 6, 7]
    assert all(job["batch"] == first["batch"] for job in jobs)
    assert [job["queue"]["position"] for job in jobs] == [0, 1, 2]


def test_a_job_of_higher_priority_stands_in_front(api: Any) -> None:
    jobs = [api.submit(priority=priority) for priority in ("low", "normal", "high")]
    places = [api.client.get(f"/jobs/{job_id}").json()["queue"]["position"] for job_id in jobs]
    assert places == [2, 1, 0]


class TestWaiting:
    """`Prefer: wait=N`."""

    def test_the_finished_job_comes_back(self, api: Any) -> None:
        def fail_the_queued_job() -> None:
            while not (queued := api.store.ids("queued")):
                time.sleep(0.02)
            api.fail(queued[0])

        worker = threading.Thread(target=fail_the_queued_job)
        worker.start()
        answer = api.client.post("/generate", json=GOOD, headers={"Prefer": "respond-async, wait=10"})
        worker.join()
        assert (answer.status_code, answer.json()["status"]) == (200, "failed")
        assert answer.headers["Preference-Applied"] == "wait=10"
        assert answer.headers["Location"] == answer.json()["links"]["self"]

    def test_when_the_time_is_over_the_job_goes_on(self, api: Any) -> None:
        answer = api.client.post("/generate", json=GOOD, headers={"Prefer": "wait=1"})
        assert (answer.status_code, answer.json()["status"]) == (202, "queued")
        assert answer.headers["Preference-Applied"] == "wait=1"

    @pytest.mark.parametrize("prefer", ["wait", "wait=x", "wait=-1", "handling=lenient"])
    def test_a_preference_that_is_none_is_ignored(self, api: Any, prefer: str) -> None:
        answer = api.client.post("/generate", json=GOOD, headers={"Prefer": prefer})
        assert answer.status_code == 202
        assert "Preference-Applied" not in answer.headers


def test_an_estimate_counts_as_the_model_would_and_queues_nothing(api: Any) -> None:
    answer = api.client.post("/generate/estimate", json=GOOD | {"n": 2})
    assert answer.status_code == 200
    body = answer.json()
    # 9x16x16 tokens, 3 heads of 64, 6 layers, 20 steps, 2 passes; 4 FLOPs for each pair of tokens and channel.
    assert body["estimate"]["tokens"] == 2304
    assert body["estimate"]["dense_flops"] == 4 * 2304**2 * 3 * 64 * 6 * 20 * 2
    assert (body["estimate"]["executed_flops"], body["estimate"]["seconds"], body["queue_wait_s"]) == (None, None, None)
    assert body["num_videos"] == 2
    assert body["request"]["seed"] == 5
    assert api.client.get("/jobs").json()["jobs"] == []


def test_a_full_queue_says_so_and_when_to_come_back(start_api: Any, own_redis: Any, tmp_path: Path) -> None:
    with start_api(own_redis.url, tmp_path, {"RIPPLE_MAX_QUEUED_JOBS": "2"}) as api:
        api.submit()
        api.submit()
        answer = api.client.post("/generate", json=GOOD)
        assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")
        assert int(answer.headers["Retry-After"]) >= 1
        assert len(api.client.get("/jobs").json()["jobs"]) == 2
