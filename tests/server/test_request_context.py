"""The id of a request in its answer and in its job."""

import re
from typing import Any

import pytest


def test_a_clients_id_is_taken_over_and_kept_with_the_job(api: Any) -> None:
    answer = api.client.post("/generate", json={"prompt": "x"}, headers={"X-Request-ID": "abc-1"})
    assert answer.headers["X-Request-ID"] == "abc-1"
    assert api.store.get(answer.json()["id"]).request_id == "abc-1"


@pytest.mark.parametrize("sent", [None, "", "two words", "x" * 129, "a\tb"])
def test_without_a_fit_id_the_request_gets_one(api: Any, sent: str | None) -> None:
    headers = {} if sent is None else {"X-Request-ID": sent}
    assert re.fullmatch("[0-9a-f]{32}", api.client.get("/jobs", headers=headers).headers["X-Request-ID"])


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/jobs?limit=0", 422), ("/readyz", 503)])
def test_errors_have_an_id_too(api: Any, path: str, status: int) -> None:
    answer = api.client.get(path)
    assert answer.status_code == status
    assert len(answer.headers["X-Request-ID"]) == 32


def test_even_an_error_nobody_expected_has_one(api: Any) -> None:
    job_id = api.submit()
    api.store.redis.hset(f"ripple:job:{job_id}", "request", "{")
    answer = api.client.get(f"/jobs/{job_id}", headers={"X-Request-ID": "broken-record"})
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (500, "broken-record")
