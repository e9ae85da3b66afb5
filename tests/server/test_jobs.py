"""Jobs: read, list, cancel, delete, and their videos."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from samples import METRICS

from ripple_core.contract.job import JobStatus
from ripple_core.contract.retention import ServingMarks
from ripple_core.contract.videos import LocalVideoStore


def finish(api: Any, content: bytes = b"0123456789") -> str:
    """A succeeded job, as a worker would leave it."""
    job_id: str = api.submit()
    api.finish(job_id, content)
    return job_id


def test_a_succeeded_job_has_metrics_and_a_video(api: Any) -> None:
    job_id = finish(api)
    job = api.client.get(f"/jobs/{job_id}").json()
    assert (job["status"], job["progress"]["fraction"], job["progress"]["stage"]) == ("succeeded", 1.0, "done")
    assert job["metrics"]["attention"]["savings"] == 0.25
    assert job["started_at"] is not None
    assert job["finished_at"] is not None
    video = api.client.get(job["links"]["video"])
    assert video.content == b"0123456789"
    assert video.headers["content-type"] == "video/mp4"
    assert video.headers["content-disposition"] == f'inline; filename="timeripple-{job_id}.mp4"'
    assert video.headers["x-content-type-options"] == "nosniff"
    assert video.headers["etag"] == '"x"', "the metrics' own digest"
    assert api.client.head(job["links"]["video"]).headers["content-length"] == "10"


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        ("bytes=0-0", 206, b"0"),
        ("bytes=2-5", 206, b"2345"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=10-", 416, None),
    ],
)
def test_ranges_of_a_video(api: Any, asked: str, status: int, content: bytes | None) -> None:
    answer = api.client.get(f"/jobs/{finish(api)}/video", headers={"Range": asked})
    assert answer.status_code == status
    if content is not None:
        assert answer.content == content
    else:
        assert answer.headers["content-range"] == "bytes */10"
        assert (answer.json()["code"], answer.json()["status"]) == ("range_not_satisfiable", 416)


@pytest.mark.parametrize("asked", ["bytes=abc", "items=0-1", "bytes=5-2"])
def test_a_range_that_is_none_is_a_problem(api: Any, asked: str) -> None:
    answer = api.client.get(f"/jobs/{finish(api)}/video", headers={"Range": asked})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_range")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("kind", "media_type"), [("thumbnail", "image/webp"), ("spritesheet", "image/jpeg")])
def test_a_video_has_pictures(api: Any, kind: str, media_type: str) -> None:
    job = api.client.get(f"/jobs/{finish(api)}").json()
    answer = api.client.get(job["links"][kind], headers={"Range": "bytes=1-2"})
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (206, media_type, b"12")


def test_a_video_that_is_fetched_is_marked_so_that_it_is_not_removed(api: Any) -> None:
    job_id, other = finish(api), finish(api)
    api.client.get(f"/jobs/{job_id}/video", headers={"Range": "bytes=0-1"})
    served = ServingMarks(api.store.redis).served(time.time())
    assert job_id in served
    assert other not in served


def test_a_video_says_until_when_it_is_kept(api: Any) -> None:
    job = api.client.get(f"/jobs/{finish(api)}").json()
    kept = datetime.fromisoformat(job["expires_at"]) - datetime.fromisoformat(job["finished_at"])
    assert kept == timedelta(days=7)


def test_a_job_whose_record_was_kept_for_its_time_is_gone(api: Any) -> None:
    job_id = finish(api)
    assert api.store.expire(job_id, timedelta(seconds=60))
    for path in ("", "/video", "/events"):
        answer = api.client.get(f"/jobs/{job_id}{path}")
        assert (answer.status_code, answer.json()["code"]) == (410, "job_expired")


def test_a_video_can_be_asked_for_as_a_download(api: Any) -> None:
    job_id = finish(api)
    answer = api.client.get(f"/jobs/{job_id}/video", params={"download": True})
    assert answer.headers["content-disposition"] == f'attachment; filename="timeripple-{job_id}.mp4"'


def test_a_running_job_that_asked_for_it_can_be_watched(api: Any) -> None:
    job_id = api.submit(preview=True)
    path = f"/jobs/{job_id}/preview"
    assert api.client.get(f"/jobs/{job_id}").json()["request"]["preview"]

    def refusal() -> str:
        answer = api.client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "no_preview")
        return str(answer.json()["detail"])

    assert "There is no preview at the moment" in refusal()
    owner = api.claim(job_id)
    api.store.set_preview(job_id, owner, 2, b"RIFF\x00\xff")
    for answer in (api.client.get(path), api.client.head(path)):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/webp"
        assert answer.headers["content-length"] == "6"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert api.client.get(path).content == b"RIFF\x00\xff"
    assert api.store.succeed(job_id, owner, METRICS, 30)
    assert f"fetch /jobs/{job_id}/video" in refusal()


def test_a_job_that_did_not_ask_cannot_be_watched(api: Any) -> None:
    answer = api.client.get(f"/jobs/{api.submit()}/preview")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_preview")
    assert "`preview: true`" in answer.json()["detail"]


def test_many_cancels_at_once_cancel_once(api: Any) -> None:
    job_id = api.submit()
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: api.client.delete(f"/jobs/{job_id}").status_code, range(8)))
    # The first one cancels; later ones find a finished job and delete it, or find it gone.
    assert 202 in statuses
    assert set(statuses) <= {202, 204, 404}
    assert api.client.get(f"/jobs/{job_id}").status_code in (200, 404)


def test_a_record_nobody_can_read_is_an_internal_error_without_its_trace(api: Any) -> None:
    job_id = api.submit()
    api.store.redis.hset(f"ripple:job:{job_id}", "request", "{")
    line = 'timeripple_http_requests_total{method="GET",route="/jobs/{job_id}",status="500"}'
    for _ in range(2):
        answer = api.client.get(f"/jobs/{job_id}")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert "JSONDecodeError" not in answer.text
    assert f"{line} 2.0" in api.client.get("/metrics").text


def test_a_video_before_its_time_and_after(api: Any) -> None:
    job_id = api.submit()
    path = f"/jobs/{job_id}/video"
    assert (api.client.get(path).status_code, api.client.get(path).json()["code"]) == (409, "video_not_ready")
    api.fail(job_id)
    assert (api.client.get(path).status_code, api.client.get(path).json()["code"]) == (409, "no_video")
    assert api.client.get(f"/jobs/{job_id}").json()["error"] == {"code": "out_of_memory", "message": "too big"}
    done = finish(api)
    LocalVideoStore(api.videos).delete(done)
    gone = api.client.get(f"/jobs/{done}/video")
    assert (gone.status_code, gone.json()["code"]) == (410, "video_expired")


def test_delete_cancels_what_is_active_and_removes_what_has_ended(api: Any) -> None:
    queued = api.submit()
    answer = api.client.delete(f"/jobs/{queued}")
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")

    running = api.submit()
    owner = api.claim(running)
    for _ in range(2):
        answer = api.client.delete(f"/jobs/{running}")
        assert (answer.status_code, answer.json()["status"]) == (202, "running")
    assert api.store.should_stop(running, owner)

    done = finish(api)
    assert api.client.delete(f"/jobs/{done}").status_code == 204
    assert not (api.videos / done).exists()
    assert api.client.get(f"/jobs/{done}").status_code == 404
    assert api.client.delete(f"/jobs/{done}").status_code == 404


def test_lists_page_from_newest_to_oldest_while_jobs_arrive(api: Any) -> None:
    ids = sorted((api.submit() for _ in range(5)), reverse=True)
    first = api.client.get("/jobs", params={"limit": 2}).json()
    api.submit()
    second = api.client.get("/jobs", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    last = api.client.get("/jobs", params={"limit": 2, "cursor": second["next_cursor"]}).json()
    assert [job["id"] for page in (first, second, last) for job in page["jobs"]] == ids
    assert last["next_cursor"] is None


def test_lists_filter_by_status(api: Any) -> None:
    queued, failed = api.submit(), api.submit()
    api.fail(failed)
    for status in JobStatus:
        listed = [job["id"] for job in api.client.get("/jobs", params={"status": status}).json()["jobs"]]
        assert listed == {JobStatus.QUEUED: [queued], JobStatus.FAILED: [failed]}.get(status, [])


def test_an_unknown_job_leaves_nothing_behind(api: Any, redis_client: Redis) -> None:
    api.client.delete(f"/jobs/{'f' * 28}")
    assert redis_client.dbsize() == 0


def test_cancelling_stops_what_is_active_and_leaves_alone_what_has_ended(api: Any) -> None:
    """Sent twice, or too late, it deletes nothing."""
    queued, running, done = api.submit(), api.submit(), api.submit()
    api.finish(done)
    owner = api.claim(running)
    for status in (202, 200):
        answer = api.client.post(f"/jobs/{queued}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (status, "cancelled")
    for _ in range(2):
        assert api.client.post(f"/jobs/{running}/cancel").status_code == 202
    assert api.store.should_stop(running, owner)
    answer = api.client.post(f"/jobs/{done}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
    assert api.client.get(f"/jobs/{done}/video").status_code == 200
