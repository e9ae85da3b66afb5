"""The API with videos in S3."""

from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from ripple_core.contract.s3_videos import S3VideoStore


def test_a_video_in_s3_is_served_like_one_on_disk(
    s3_url: str, start_api: Any, redis_client: Redis, tmp_path: Path
) -> None:
    with start_api(redis_socket(redis_client), tmp_path / "api", {"RIPPLE_STORE_URL": s3_url}) as api:
        job_id = api.submit()
        # Into the data folder, where this API must not look.
        api.finish(job_id, b"on this disk")
        video = f"/jobs/{job_id}/video"
        assert api.client.get(video).json()["code"] == "video_expired"
        worker = S3VideoStore(s3_url, tmp_path / "worker")
        with worker.staging(job_id, "e") as staged:
            (staged.folder / "video.mp4").write_bytes(b"0123456789")
            staged.publish()
        whole = api.client.get(video)
        assert (whole.status_code, whole.content, whole.headers["etag"]) == (200, b"0123456789", '"x"')
        part = api.client.get(video, headers={"Range": "bytes=2-5", "If-Range": whole.headers["etag"]})
        assert (part.status_code, part.content) == (206, b"2345")
        assert part.headers["content-range"] == "bytes 2-5/10"
        assert part.headers["last-modified"] == whole.headers["last-modified"]
        assert api.client.delete(f"/jobs/{job_id}").status_code == 204
        assert worker.stored() == []


def test_an_outage_of_s3_is_told_as_one(
    start_api: Any, redis_client: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    # Nobody listens there.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with start_api(redis_socket(redis_client), tmp_path, {"RIPPLE_STORE_URL": "s3://bucket"}) as api:
        job_id = api.submit()
        api.finish(job_id)
        answer = api.client.get(f"/jobs/{job_id}/video")
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
        assert "127.0.0.1" not in answer.text
        assert "retry-after" in answer.headers
        assert api.client.get(f"/jobs/{job_id}").status_code == 200


def redis_socket(redis: Redis) -> str:
    return f"unix://{redis.connection_pool.connection_kwargs['path']}"
