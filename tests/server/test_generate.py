"""POST /generate and what it refuses."""

from typing import Any

import pytest

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
    }
    assert (job["error"], job["metrics"], job["links"]["video"]) == (None, None, None)
    assert api.client.get(answer.headers["Location"]).json() == job
    assert api.store.redis.llen("rq:queue:ripple") == 1


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
    assert api.store.redis.dbsize() == 0


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
    [b"{", b"\xff", b"\xff\xfe", b'{"prompt": "x",}', b"[" * 100_000, b'{"seed": 1' + b"0" * 5000 + b"}"],
    ids=["cut", "latin", "utf16", "comma", "deep", "long number"],
)
def test_a_body_that_cannot_be_read_is_refused(api: Any, body: bytes) -> None:
    answer = api.client.post("/generate", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("body", "kind"), [(b"", "application/json"), (b'{"prompt": "x"}', "text/plain")])
def test_a_body_that_is_missing_or_of_another_type_is_refused(api: Any, body: bytes, kind: str) -> None:
    answer = api.client.post("/generate", content=body, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body")


def test_text_that_is_not_unicode_is_refused(api: Any) -> None:
    body = b'{"prompt": "\\ud800"}'
    answer = api.client.post("/generate", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "prompt")


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
