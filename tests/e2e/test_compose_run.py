"""The services of docker-compose.yml, with the override for machines without a GPU, started natively (native.py).

No Docker engine takes part, so images, networks and volumes are not tried. Grafana and MinIO have no programs here:
test_compose.py looks at Grafana's files, and tests/faults/test_store.py keeps videos in an S3 server that is not MinIO.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from e2e.compose import CPU_FILE, FILE, ROOT, load
from e2e.native import Deployment, NativeService, running
from fleet import SMALL, until
from redis import AuthenticationError, Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from scraped import Scrape

PASSWORD = "a-long-one"  # noqa: S105
SCRAPES = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yml").read_text())["scrape_configs"]
(SCALER,) = yaml.safe_load((ROOT / "docker/kubernetes/scaler.yaml").read_text())["spec"]["triggers"]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    config = load(FILE, CPU_FILE, values={"REDIS_PASSWORD": PASSWORD})
    with running(Deployment(config, tmp_path_factory.mktemp("compose"))) as deployed:
        yield deployed


@pytest.fixture(scope="module")
def job(deployment: Deployment) -> dict[str, Any]:
    """A job that went through."""
    api = httpx.Client(base_url=f"http://127.0.0.1:{deployment.services['server'].port(8000)}", timeout=60)
    answer = api.post("/generate", json=SMALL)
    assert answer.status_code == 202, answer.text
    path = answer.headers["location"]
    until(lambda: api.get(path).json()["status"] not in ("queued", "running"), "the job has ended")
    return dict(api.get(path).json())


@pytest.fixture(scope="module")
def prometheus(
    deployment: Deployment, job: dict[str, Any], prometheus_binaries: tuple[Path, Path]
) -> Iterator[NativeService]:
    """Prometheus with the file's command and configuration; the DNS that finds workers is Docker's: they are named."""
    del job
    service = deployment.services["prometheus"]
    folder = deployment.folder / "prometheus"
    folder.mkdir()
    config = yaml.safe_load((service.mounts["/etc/prometheus"] / "prometheus.yml").read_text())
    for scrape in config["scrape_configs"]:
        scrape.pop("dns_sd_configs", None)
        scrape["static_configs"] = [{"targets": [f"127.0.0.1:{port_of(deployment, scrape['job_name'])}"]}]
        scrape["scrape_interval"] = "1s"
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "rules.yml").write_bytes((service.mounts["/etc/prometheus"] / "rules.yml").read_bytes())
    service.mounts["/etc/prometheus"] = folder
    service.program = (str(prometheus_binaries[0]),)
    service.start(f"--web.listen-address=127.0.0.1:{service.port(9090)}")
    try:
        service.wait_until_healthy()
        yield service
    finally:
        service.stop()


def port_of(deployment: Deployment, job_name: str) -> int:
    """Where the target of prometheus.yml that has this name is here."""
    (scrape,) = (scrape for scrape in SCRAPES if scrape["job_name"] == job_name)
    if "static_configs" in scrape:
        ((target,),) = (static["targets"] for static in scrape["static_configs"])
        name, _, port = target.partition(":")
    else:
        ((name, port),) = ((dns["names"][0], dns["port"]) for dns in scrape["dns_sd_configs"])
    return deployment.services[name].port(int(port))


def test_services_start_in_the_order_of_their_dependencies(deployment: Deployment) -> None:
    assert [service.name for service in deployment.in_order()] == ["redis", "server", "worker"]
    assert all(service.is_healthy() for service in deployment.in_order())


def test_a_job_goes_through_to_an_mp4_in_the_shared_volume(deployment: Deployment, job: dict[str, Any]) -> None:
    assert job["status"] == "succeeded", deployment.services["worker"].log
    port = deployment.services["server"].port(8000)
    video = httpx.get(f"http://127.0.0.1:{port}/jobs/{job['id']}/video").raise_for_status().content
    assert video[4:8] == b"ftyp"
    (stored,) = (deployment.folder / "volumes/videos").rglob("video.mp4")
    assert stored.read_bytes() == video


def test_redis_asks_for_the_password_and_appends_to_a_file(deployment: Deployment, job: dict[str, Any]) -> None:
    port = deployment.services["redis"].port(6379)
    with pytest.raises(AuthenticationError):
        Redis(port=port, retry=Retry(NoBackoff(), 0)).ping()
    with Redis(port=port, password=PASSWORD, decode_responses=True) as redis:
        assert redis.exists(f"ripple:job:{job['id']}")
        assert redis.config_get("appendonly") == {"appendonly": "yes"}
        assert redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert list((deployment.folder / "volumes/redis").rglob("*appendonly.aof*"))


def test_metrics_are_where_prometheus_looks_for_them(deployment: Deployment, job: dict[str, Any]) -> None:
    del job

    def scraped(job_name: str) -> Scrape:
        return Scrape(httpx.get(f"http://127.0.0.1:{port_of(deployment, job_name)}/metrics").raise_for_status().text)

    assert sum(scraped("timeripple-api").values("timeripple_jobs_ended_total", status="succeeded")) == 1
    assert sum(scraped("timeripple-worker").values("timeripple_job_seconds_count")) == 1


def test_nothing_is_written_but_into_volumes_and_the_folder_for_temporary_files(
    deployment: Deployment, job: dict[str, Any]
) -> None:
    """Root file systems are read-only, and homes on them."""
    del job
    written = {path.relative_to(deployment.folder).parts[0] for path in deployment.folder.rglob("*") if path.is_file()}
    logs = {f"{service.name}.log" for service in deployment.services.values()}
    assert written - logs - {"prometheus"} <= {"volumes", "tmp"}
    assert not (deployment.folder / "home").exists()


def test_prometheus_scrapes_both_and_the_scaler_finds_one_figure(prometheus: NativeService) -> None:
    api = httpx.Client(base_url=f"http://127.0.0.1:{prometheus.port(9090)}/api/v1")

    def ask(query: str) -> list[dict[str, Any]]:
        return list(api.get("/query", params={"query": query}).raise_for_status().json()["data"]["result"])

    wanted = {scrape["job_name"] for scrape in SCRAPES}
    until(lambda: {one["metric"]["job"] for one in ask("up == 1")} == wanted, "both are up")
    (figure,) = until(lambda: ask(SCALER["metadata"]["query"]), "the scaler's query has a result")
    assert (figure["metric"], float(figure["value"][1])) == ({}, 0)
