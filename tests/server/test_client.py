"""The Python client for users, sync and async, against a live server."""

import asyncio
import hashlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource
from timeripple_client import AsyncClient, Client, GenerateRequest, TimeRippleError, models
from timeripple_client.follower import Follower

from ripple_core.contract.job import Progress
from ripple_core.contract.videos import LocalVideoStore
from server.event_stream import HEARTBEAT_SECONDS

CONTENT = bytes(range(256)) * 8192
ROOT = Path(__file__).parents[2]


@pytest.fixture
def client(api: Any) -> Iterator[Client]:
    with Client(str(api.client.base_url)) as client:
        yield client


def play_worker(api: Any, job_id: str, end: Callable[[], None]) -> threading.Thread:
    """Three steps, then the end."""

    def work() -> None:
        owner = api.claim(job_id)
        for step in range(3):
            time.sleep(0.05)
            api.store.set_progress(job_id, owner, Progress(stage="denoise", step=step, total_steps=3))
        end()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def fail(api: Any, job_id: str) -> Callable[[], None]:
    from ripple_core.contract.job import JobError

    return lambda: api.store.fail(job_id, "worker/e", JobError(code="out_of_memory", message="too big"))


def test_a_request_is_sent_as_it_was_meant(client: Client) -> None:
    job = client.generate("a red circle", seed=5, width=64, height=64, reuse={"aggressiveness": 0.25})
    assert (job.status, job.request.seed, job.request.width, job.request.reuse.aggressiveness) == (
        "queued",
        5,
        64,
        0.25,
    )
    whole = GenerateRequest(prompt="a blue square", seed=6)
    assert client.generate(whole).request.prompt == "a blue square"
    assert [listed.request.seed for listed in client.jobs()] == [6, 5]
    assert client.models().models[0].id == "timeripple/builtin"
    estimate = client.estimate("a red circle").estimate
    assert estimate
    assert estimate.tokens == 2304


def test_problems_become_errors(client: Client, tmp_path: Path) -> None:
    with pytest.raises(TimeRippleError, match="nearest: 48 or 64") as refused:
        client.generate("x", width=63)
    assert (refused.value.status, refused.value.code) == (422, "invalid_request")
    assert [wrong.field for wrong in refused.value.errors] == ["width"]
    with pytest.raises(TimeRippleError, match="known are"):
        client.generate("x", stpes=4)
    with pytest.raises(TimeRippleError) as refused:
        client.generate("x", image=b"no picture")
    assert refused.value.errors[0].field == "image"
    job = client.generate("x")
    with pytest.raises(TimeRippleError) as refused:
        client.download(job, tmp_path / "out.mp4")
    assert refused.value.code == "video_not_ready"
    assert list(tmp_path.iterdir()) == []


def test_wait_follows_a_job_to_its_end(client: Client, api: Any) -> None:
    job = client.generate("x")
    worker = play_worker(api, job.id, fail(api, job.id))
    steps: list[int] = []
    ended = client.wait(job, on_progress=lambda progress: steps.append(progress.step))
    worker.join()
    assert (ended.status, ended.error and ended.error.code, steps) == ("failed", "out_of_memory", [0, 1, 2])
    assert client.wait(job).status == "failed", "a job that has ended long ago too"


def test_waiting_has_a_limit_and_the_job_goes_on(client: Client) -> None:
    job = client.generate("x")
    with pytest.raises(TimeoutError):
        client.wait(job, timeout_s=0.5)
    assert client.get(job).status == "queued"
    for _ in range(2):
        assert client.cancel(job).status == "cancelled"
    assert client.get(job).status == "cancelled"


@dataclass
class FlakyProxy:
    """Passes connections on, and cuts each of the first few after so many bytes of the answer."""

    target: tuple[str, int]
    cut_after: list[int]
    connections: int = 0
    listener: socket.socket = field(default_factory=socket.socket)

    @property
    def url(self) -> str:
        host, port = self.listener.getsockname()
        return f"http://{host}:{port}"

    def start(self) -> None:
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            limit = self.cut_after[self.connections] if self.connections < len(self.cut_after) else None
            self.connections += 1
            far = socket.create_connection(self.target)
            threading.Thread(target=_pump, args=(near, far, None), daemon=True).start()
            threading.Thread(target=_pump, args=(far, near, limit), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket, limit: int | None) -> None:
    passed = 0
    with suppress(OSError):
        while chunk := source.recv(4096):
            if limit is not None and passed + len(chunk) > limit:
                target.sendall(chunk[: limit - passed])
                break
            target.sendall(chunk)
            passed += len(chunk)
    for end in (source, target):
        # Closing alone would leave the other thread's read, and so the connection, open.
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def through(api: Any) -> Iterator[Callable[[list[int]], FlakyProxy]]:
    proxies: list[FlakyProxy] = []

    def start(cut_after: list[int]) -> FlakyProxy:
        proxy = FlakyProxy((api.client.base_url.host, api.client.base_url.port), cut_after)
        proxy.start()
        proxies.append(proxy)
        return proxy

    yield start
    for proxy in proxies:
        proxy.listener.close()


def finished(api: Any) -> str:
    job_id: str = api.submit()
    api.finish(job_id, CONTENT)
    return job_id


@pytest.mark.parametrize("kind", ["thumbnail", "spritesheet"])
def test_a_download_goes_on_where_the_connection_broke(
    api: Any, through: Any, client: Client, tmp_path: Path, kind: Any
) -> None:
    job = client.get(finished(api))
    proxy = through([300_000, 500_000])
    with Client(proxy.url) as flaky:
        path = flaky.download(job, tmp_path / "file", kind=kind)
    assert path.read_bytes() == CONTENT
    assert proxy.connections == 3
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_whole_video_gets_the_name_of_its_job(
    api: Any, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job_id = api.submit()
    owner = api.claim(job_id)
    with LocalVideoStore(api.videos).staging(job_id, "e") as staged:
        (staged.folder / "video.mp4").write_bytes(CONTENT)
        staged.publish()
    metrics = api.store.get(finished(api)).metrics
    file = metrics.output.model_copy(update={"sha256": hashlib.sha256(CONTENT).hexdigest()})
    assert api.store.succeed(job_id, owner, metrics.model_copy(update={"output": file}), 30)
    path = client.download(client.get(job_id))
    assert (path.name, path.read_bytes()) == (f"{job_id}.mp4", CONTENT)
    assert list(tmp_path.iterdir()) == [tmp_path / path.name]


def test_a_damaged_video_is_not_kept(api: Any, client: Client, tmp_path: Path) -> None:
    """The metrics of this job name another digest."""
    with pytest.raises(TimeRippleError, match="damaged"):
        client.download(client.get(finished(api)), tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_events_go_on_where_the_connection_broke(api: Any, through: Any, client: Client) -> None:
    job = client.generate("x")
    play_worker(api, job.id, fail(api, job.id)).join()
    whole = list(client.events(job))
    assert [event.name for event in whole] == ["state", "state", "progress", "progress", "progress", "state"]
    with Client(through([600, 700]).url) as flaky:
        assert list(flaky.events(job)) == whole


def test_a_sign_of_life_is_no_event() -> None:
    """httpx-sse makes one of it once an id has been seen."""
    text = 'id: 1-0\nevent: state\ndata: {"status": "running"}\n\n: still here\n\n'
    answer = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text=text)
    follower = Follower(None)
    taken = [follower.take(received) for received in EventSource(answer).iter_sse()]
    assert [event and event.data for event in taken] == [{"status": "running"}, None]
    assert follower.request()["headers"] == {"Last-Event-ID": "1-0"}


def test_signs_of_life_keep_a_stream_but_hide_no_deadline() -> None:
    assert Follower(None).request()["timeout"] > HEARTBEAT_SECONDS > Follower(3600).request()["timeout"]


def test_a_stream_without_the_end_of_the_job_is_no_end() -> None:
    follower = Follower(None)
    assert follower.accepts(httpx.Response(200))
    with pytest.raises(httpx.RemoteProtocolError):
        follower.check_ended()
    assert not follower.ended


def test_a_deadline_holds_while_the_server_has_lost_its_store(own_redis: Any, start_api: Any, tmp_path: Path) -> None:
    with start_api(own_redis.url, tmp_path) as api, Client(str(api.client.base_url)) as client:
        job = client.generate("x")
        own_redis.stop()
        with pytest.raises(TimeoutError):
            client.wait(job, timeout_s=1)


def test_a_submission_that_was_not_answered_is_sent_again_and_makes_one_job(through: Any, client: Client) -> None:
    """The first answers are lost on the way: the server has the job, the client does not know."""
    proxy = through([10, 10])
    with Client(proxy.url) as flaky:
        job = flaky.generate("x")
    assert proxy.connections == 3
    assert [listed.id for listed in client.jobs()] == [job.id]


def test_a_busy_server_is_asked_again_when_it_said(own_redis: Any, start_api: Any, tmp_path: Path) -> None:
    from redis import Redis

    from ripple_core.contract.keys import ApiKeys

    _, token = ApiKeys(Redis.from_url(own_redis.url)).create("x", rate_limit="1/second")
    with start_api(own_redis.url, tmp_path) as api, Client(str(api.client.base_url), api_key=token) as client:
        jobs = [client.generate("x") for _ in range(3)]
        assert len({job.id for job in jobs}) == 3


def test_both_clients_see_what_a_running_job_looks_like(api: Any, client: Client) -> None:
    job = client.generate("x", preview=True)
    with pytest.raises(TimeRippleError) as refused:
        client.preview(job)
    assert (refused.value.status, refused.value.code) == (404, "no_preview")
    api.store.set_preview(job.id, api.claim(job.id), 2, b"RIFF")
    assert client.preview(job) == b"RIFF"

    async def look() -> bytes:
        async with AsyncClient(str(api.client.base_url)) as other:
            return await other.preview(job.id)

    assert asyncio.run(look()) == b"RIFF"


def test_the_async_client_does_the_same(api: Any, through: Any, tmp_path: Path) -> None:
    async def use() -> None:
        async with AsyncClient(through([10, 300_000]).url) as client:
            job = await client.generate("x", seed=1)
            worker = play_worker(api, job.id, fail(api, job.id))
            steps: list[int] = []
            ended = await client.wait(job, on_progress=lambda progress: steps.append(progress.step))
            worker.join()
            assert (ended.status, steps) == ("failed", [0, 1, 2])
            assert [listed.id async for listed in client.jobs()] == [job.id]
            done = await client.get(finished(api))
            path = await client.download(done, tmp_path / "sheet.jpg", kind="spritesheet")
            assert path.read_bytes() == CONTENT
            await client.delete(job)
            with pytest.raises(TimeRippleError) as refused:
                await client.get(job)
            assert refused.value.code == "job_not_found"
            waiting = await client.generate("x")
            with pytest.raises(TimeoutError):
                await client.wait(waiting, timeout_s=0.3)
            assert (await client.cancel(waiting)).status == "cancelled"

    asyncio.run(use())


def test_the_client_needs_nothing_of_the_server() -> None:
    code = "import sys, timeripple_client; print({'ripple_core', 'server', 'worker', 'torch'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_the_models_are_what_the_document_gives(tmp_path: Path) -> None:
    written = tmp_path / "models.py"
    subprocess.run([sys.executable, str(ROOT / "openapi" / "generate_client.py"), str(written)], check=True)
    assert written.read_text() == Path(models.__file__).read_text(), "run `make openapi`"
