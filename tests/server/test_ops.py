"""Health, readiness, metrics, models, the OpenAPI document, and life without Redis."""

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from samples import worker_info

from server.openapi import OPENAPI_FILE, render


def test_alive_without_a_worker_but_not_ready(api: Any) -> None:
    assert api.client.get("/healthz").json() == {"status": "ok"}
    answer = api.client.get("/readyz")
    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (503, "not_ready", "5")
    for state in ("starting", "draining"):
        api.store.beat(worker_info("w", state), timedelta(seconds=30))
        assert "No worker takes jobs" in api.client.get("/readyz").json()["detail"]
    api.store.beat(worker_info("w"), timedelta(seconds=30))
    assert api.client.get("/readyz").status_code == 200


def test_the_model_says_what_it_can_take(api: Any) -> None:
    (model,) = api.client.get("/models").json()["models"]
    assert model["id"] == "timeripple/builtin"
    assert model["defaults"]["num_frames"] == 17
    assert (model["size_multiple"], model["frame_multiple"]) == (16, 2)
    assert model["modes"] == ["auto", "ripple", "channel", "dense"]
    assert "source" not in model


def test_without_redis_every_route_says_so_and_none_breaks(own_redis: Any, start_api: Any, tmp_path: Path) -> None:
    with start_api(own_redis.url, tmp_path) as api:
        job_id = api.submit()
        own_redis.stop()
        for method, path in (
            ("POST", "/generate"),
            ("GET", "/jobs"),
            ("GET", f"/jobs/{job_id}"),
            ("GET", f"/jobs/{job_id}/video"),
            ("GET", f"/jobs/{job_id}/events"),
            ("DELETE", f"/jobs/{job_id}"),
            ("GET", "/readyz"),
        ):
            answer = api.client.request(method, path, json={"prompt": "x"} if method == "POST" else None)
            assert (answer.status_code, answer.json()["code"]) == (503, "redis_unavailable"), path
            assert answer.headers["Retry-After"] == "5"
            assert "Traceback" not in answer.text
        assert api.client.get("/healthz").status_code == 200
        assert "timeripple_redis_up 0.0" in api.client.get("/metrics").text


def test_the_documentation_page_loads_nothing_from_other_sites(api: Any) -> None:
    page = api.client.get("/docs").text
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sources
    for source in sources:
        assert source.startswith("/")
        assert api.client.get(source).status_code == 200
    assert "/openapi.json" in page


def test_the_openapi_file_is_what_the_code_gives() -> None:
    assert OPENAPI_FILE.read_text() == render(), "run `make openapi`"


@pytest.mark.parametrize("path", ["/generate", "/jobs", "/jobs/{job_id}", "/jobs/{job_id}/video"])
def test_the_openapi_document_describes_problems(path: str) -> None:
    document = json.loads(render())
    references = set(re.findall(r'"#/components/schemas/(\w+)"', render()))
    assert references <= set(document["components"]["schemas"])
    assert "Problem" in document["components"]["schemas"]
    for operation in document["paths"][path].values():
        problems = [answer for status, answer in operation["responses"].items() if status >= "400"]
        assert problems
        assert all("application/problem+json" in answer["content"] for answer in problems if "content" in answer)


def test_the_openapi_document_describes_every_field_and_every_answer() -> None:
    document = json.loads(render())
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description") or "enum" in schema, name
        for field, content in schema.get("properties", {}).items():
            assert content.get("description") or "$ref" in content, f"{name}.{field}"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["description"]
            assert all(answer["description"] for answer in operation["responses"].values())
            for parameter in operation.get("parameters", []):
                assert parameter["description"], f"{method} {path} {parameter['name']}"


def test_the_examples_of_answers_hold() -> None:
    document = json.loads(render())
    with_examples = {name: one for name, one in document["components"]["schemas"].items() if "examples" in one}
    assert {"Job", "JobPage", "EstimateAnswer", "Problem", "Video", "OpenAIError"} <= set(with_examples)
    for name, schema in with_examples.items():
        for example in schema["examples"]:
            reference = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
            jsonschema.validate(example, reference)


def test_every_request_body_has_an_example_that_holds(api: Any) -> None:
    document = json.loads(render())
    for path, operations in document["paths"].items():
        body = operations.get("post", {}).get("requestBody")
        if body is not None:
            name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            for example in document["components"]["schemas"][name]["examples"]:
                answer = api.client.post(path.format(job_id=api.submit()), json=example)
                assert answer.is_success, (path, answer.text)


def test_the_openapi_document_lists_the_answers_of_delete() -> None:
    answers = json.loads(render())["paths"]["/jobs/{job_id}"]["delete"]["responses"]
    assert sorted(answers) == ["202", "204", "401", "403", "404", "410", "422", "503"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"RIPPLE_PORT": "x"}, "port"),
        ({"RIPPLE_MODEL": "/nowhere"}, "/nowhere"),
        ({"REDIS_URL": "http://x"}, "REDIS_URL"),
        ({"REDIS_URL": None}, "REDIS_URL is not set"),
    ],
    ids=str,
)
def test_wrong_settings_are_one_line_and_exit_2(wrong: dict[str, str | None], says: str) -> None:
    settings = os.environ | {"REDIS_URL": "redis://127.0.0.1:1"} | wrong
    environment = {name: value for name, value in settings.items() if value is not None}
    done = subprocess.run(
        [sys.executable, "-m", "server"], env=environment, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_the_server_loads_no_torch() -> None:
    code = "import sys, server.app; sys.exit('torch' in sys.modules or 'worker' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0
