"""One request through every process: its trace at a local OTLP receiver, its id in every log, and prompts in none."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fleet import SMALL, Fleet, answers, running_fleet, until
from otlp_receiver import ReceivedSpan, running_receiver
from ports import free_port

WORDS = "zebra"
REQUEST_ID = "from-the-client:1"
TRACE_ID, CLIENT_SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STAGES = ["load", "text_encode", "denoise", "vae_decode", "mp4_encode", "store"]
SETTINGS = {"OTEL_BSP_SCHEDULE_DELAY": "200", "RIPPLE_LOG_FORMAT": "json"}


@dataclass
class Observed:
    """A deployment that has run a job, failed at another and ended, and what was seen of it."""

    job: dict[str, Any]
    failed: dict[str, Any]
    spans: list[ReceivedSpan]
    logs: dict[str, list[dict[str, Any]]]
    text: str

    def span(self, name: str) -> ReceivedSpan:
        """Of the job that succeeded."""
        (found,) = (span for span in self.spans if span.name == name and span.trace_id == TRACE_ID)
        return found

    def lines(self, module: str, request_id: str) -> list[dict[str, Any]]:
        return [line for line in self.logs[module] if line.get("request_id") == request_id]


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("fleet")
    loras = tmp_path_factory.mktemp("loras")
    (loras / "broken.safetensors").write_bytes(b"no tensors")
    with running_receiver() as receiver:
        settings = SETTINGS | {"RIPPLE_LORA_DIR": str(loras), "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        with running_fleet(folder, **settings) as fleet:
            job = _run_job(fleet)
            failed = fleet.wait(fleet.submit(loras=[{"name": "broken"}]))
            fleet.client.get(f"/jobs/{job['id']}/video", params={"token": WORDS})
            until(lambda: sum(span.name == "job" for span in receiver.spans) == 2, "the jobs' spans have come")
        logs = {module: _read_log(folder, module) for module in ("server", "worker")}
        text = "".join(path.read_text() for path in folder.glob("*.log"))
        yield Observed(job, failed, receiver.spans, logs, text)


def _run_job(fleet: Fleet) -> dict[str, Any]:
    headers = {"X-Request-ID": REQUEST_ID, "traceparent": f"00-{TRACE_ID}-{CLIENT_SPAN_ID}-01"}
    body = SMALL | {"prompt": f"a red {WORDS}"}
    answer = fleet.client.post("/generate", json=body, headers=headers)
    assert answer.headers["X-Request-ID"] == REQUEST_ID
    return fleet.wait(answer.json()["id"])


def _read_log(folder: Path, module: str) -> list[dict[str, Any]]:
    return [json.loads(line) for path in folder.glob(f"{module}-*.log") for line in path.read_text().splitlines()]


def test_the_trace_goes_from_the_client_through_queue_and_worker_to_the_store(observed: Observed) -> None:
    ours = [span for span in observed.spans if span.trace_id == TRACE_ID]
    assert {span.service for span in ours} == {"timeripple-server", "timeripple-worker"}
    request, job = observed.span("POST /generate"), observed.span("job")
    assert request.parent_id == CLIENT_SPAN_ID
    assert {observed.span("queue").parent_id, job.parent_id} == {request.span_id}
    assert [span.name for span in sorted(ours, key=lambda span: span.began) if span.parent_id == job.span_id] == STAGES
    assert not any(span.is_error for span in ours)


def test_spans_last_as_long_as_the_job_says(observed: Observed) -> None:
    latency = observed.job["metrics"]["latency_s"]
    for stage in ("queue", "denoise", "text_encode"):
        span = observed.span(stage)
        # What the parent sees of a stage begins and ends a moment late.
        assert span.ended - span.began == pytest.approx(latency[stage], abs=3), stage
    job = observed.span("job")
    for stage in STAGES:
        span = observed.span(stage)
        assert job.began <= span.began <= span.ended <= job.ended


def test_spans_say_which_job_and_what_it_saved(observed: Observed) -> None:
    request, job = observed.span("POST /generate"), observed.span("job")
    assert request.attributes["http.response.status_code"] == 202
    assert job.attributes["timeripple.job.id"] == observed.job["id"]
    assert job.attributes["timeripple.savings"] == observed.job["metrics"]["attention"]["savings"]


def test_a_failure_is_an_error_of_its_span_with_the_code(observed: Observed) -> None:
    assert observed.failed["error"]["code"] == "lora_load_failed"
    (span,) = (span for span in observed.spans if span.name == "job" and span.trace_id != TRACE_ID)
    assert span.is_error
    assert span.attributes["error.type"] == "lora_load_failed"


def test_what_machines_ask_every_few_seconds_is_neither_traced_nor_logged(observed: Observed) -> None:
    assert "GET /jobs/{job_id}" in {span.name for span in observed.spans}
    assert not any("healthz" in span.name for span in observed.spans)
    assert "healthz" not in observed.text


def test_every_process_logs_with_the_requests_id(observed: Observed) -> None:
    about_request = {line["event"] for line in observed.lines("server", REQUEST_ID)}
    assert about_request == {"job accepted", "request"}
    events = [line for line in observed.lines("worker", REQUEST_ID) if line["logger"] == "worker.execution"]
    assert [line["event"] for line in events] == ["job started", "job succeeded"]
    assert {line["job_id"] for line in events} == {observed.job["id"]}


def test_no_prompt_and_no_token_of_a_link_is_in_a_log_or_a_span(observed: Observed) -> None:
    assert WORDS not in observed.text
    assert WORDS not in repr(observed.spans)


def test_every_line_is_json_with_its_time_level_and_logger(observed: Observed) -> None:
    for lines in observed.logs.values():
        assert lines
        for line in lines:
            assert {"timestamp", "level", "logger", "event"} <= line.keys()


def test_a_receiver_that_never_answers_does_not_keep_a_process_from_ending(own_redis: Any, tmp_path: Path) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = {
            "REDIS_URL": own_redis.url,
            "RIPPLE_DATA_DIR": str(tmp_path),
            "RIPPLE_PORT": str(port),
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://{}:{}".format(*silent.getsockname()),
        }
        process = subprocess.Popen([sys.executable, "-m", "server"], env=os.environ | settings)
        until(lambda: answers(f"http://127.0.0.1:{port}/jobs"), "the API answers")
        process.terminate()
        # An export may be under way for ten seconds; the SDK would wait for thirty more.
        assert process.wait(timeout=20) == 0
