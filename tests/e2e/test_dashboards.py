"""Prometheus itself on two API processes and a worker that have seen jobs of every outcome: every query of every panel
and alert, and figures that must agree with what the jobs say.

Grafana does not run here; `grafana.query` fills in the dashboards' variables as it does. Without a GPU the driver's
library is a stand-in.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fleet import Fleet, answers, running_fleet, until
from grafana.build import DASHBOARDS, path_of, render
from grafana.panel import Panel, recorded
from grafana.picture import draw
from grafana.query import Window, read_panel
from PIL import Image
from ports import free_port

PROMETHEUS = Path(__file__).parents[2] / "docker" / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
PANELS = [(title, panel) for title, panels in DASHBOARDS.items() for panel in panels]
STAND_INS = Path(__file__).parent / "stand_ins"
# Large enough that attention reuses.
REAL = {"width": 64, "height": 64, "num_frames": 17}
SCRAPE_SECONDS = 1


@dataclass
class Watched:
    """A deployment under Prometheus' eyes."""

    fleet: Fleet
    prometheus: str
    began: float

    @cached_property
    def jobs(self) -> list[dict[str, Any]]:
        return list(self.fleet.client.get("/jobs", params={"limit": 100}).json()["jobs"])

    @cached_property
    def window(self) -> Window:
        return Window(self.began, time.time(), 60.0)

    def query(self, expression: str) -> list[Any]:
        answer = httpx.get(f"{self.prometheus}/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"]["result"])

    def value(self, expression: str) -> float:
        (found,) = self.query(expression)
        return float(found["value"][1])


@contextmanager
def another_api(fleet: Fleet, metrics_port: int) -> Iterator[None]:
    settings = {"REDIS_URL": fleet.redis.url, "RIPPLE_DATA_DIR": str(fleet.folder / "data")}
    settings |= {"RIPPLE_PORT": str(free_port()), "RIPPLE_METRICS_PORT": str(metrics_port)}
    process = subprocess.Popen([sys.executable, "-m", "server"], env=os.environ | settings)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextmanager
def running_prometheus(binary: Path, folder: Path, targets: dict[str, list[str]]) -> Iterator[str]:
    """On the configuration of the deployment, at other addresses and more often."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(("scrape_interval", "evaluation_interval"), f"{SCRAPE_SECONDS}s")
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    for scrape in config["scrape_configs"]:
        for discovery in [name for name in scrape if name.endswith("_sd_configs")]:
            del scrape[discovery]
        scrape["static_configs"] = [{"targets": targets[scrape["job_name"]]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = [binary, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
    process = subprocess.Popen([*command, f"--web.listen-address={address}", "--log.level=warn"])
    try:
        until(lambda: answers(f"http://{address}/-/ready"), "Prometheus is ready")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def watched(prometheus_binaries: tuple[Path, Path]) -> Iterator[Watched]:
    api, other_api, worker = (free_port() for _ in range(3))
    targets = {"timeripple-api": [f"127.0.0.1:{api}", f"127.0.0.1:{other_api}"]}
    targets["timeripple-worker"] = [f"127.0.0.1:{worker}"]
    with tempfile.TemporaryDirectory(prefix="tr-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "broken.safetensors").write_bytes(b"no tensors")
        settings = {"RIPPLE_LORA_DIR": name, "RIPPLE_METRICS_PORT": str(api), "RIPPLE_WEBHOOK_ALLOW": "127.0.0.1"}
        with running_fleet(folder, 0, **settings) as fleet, another_api(fleet, other_api):
            path = os.pathsep.join([str(STAND_INS), os.environ.get("PYTHONPATH", "")])
            fleet.start_worker(RIPPLE_METRICS_PORT=str(worker), PYTHONPATH=path)
            with running_prometheus(prometheus_binaries[0], folder, targets) as prometheus:
                watched = Watched(fleet, prometheus, time.time())
                # What grows before the first scrape has grown unseen.
                until(lambda: watched.query("timeripple_job_seconds_count"), "the worker has been scraped")
                _run_jobs(fleet)
                _wait_for_scrapes(watched)
                yield watched


def _run_jobs(fleet: Fleet) -> None:
    """Of every outcome."""
    unreachable = f"http://127.0.0.1:{free_port()}/hook"
    real = [
        fleet.submit(**REAL, reuse={"mode": "ripple", "aggressiveness": dial}, webhook={"url": unreachable})
        for dial in (0.3, 1.0)
    ]
    checked = fleet.submit(**REAL, quality_check=True)
    # Shorter than reuse is worth.
    short, dense = fleet.submit(), fleet.submit(reuse={"mode": "dense"})
    failed = fleet.submit(loras=[{"name": "broken"}])
    queued = fleet.submit(priority="low")
    fleet.client.delete(f"/jobs/{queued}")
    for job_id in (*real, checked, short, dense):
        assert fleet.wait(job_id)["status"] == "succeeded"
    assert fleet.wait(failed)["status"] == "failed"
    cancelled = fleet.submit(num_inference_steps=100)
    fleet.wait_for_stage(cancelled, "denoise", step=1)
    fleet.client.delete(f"/jobs/{cancelled}")
    lost = fleet.submit(num_inference_steps=20)
    fleet.wait_for_stage(lost, "denoise", step=1)
    fleet.workers[0].kill("engine")
    assert fleet.wait(lost)["attempts"] == 2


def _wait_for_scrapes(watched: Watched) -> None:
    """Until Prometheus has what the processes have now, and the rules have been evaluated on it."""
    until(
        lambda: watched.value(f"sum({recorded('jobs_ended')})") == len(watched.jobs),
        "all ends have been scraped",
    )
    time.sleep(3 * SCRAPE_SECONDS)


def test_the_rules_are_valid_and_alert_when_they_should(prometheus_binaries: tuple[Path, Path]) -> None:
    promtool = prometheus_binaries[1]
    for command in (
        ["check", "config", "prometheus.yml"],
        ["test", "rules", Path(__file__).parent / "alerts_test.yml"],
    ):
        done = subprocess.run([promtool, *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested() -> None:
    tested = yaml.safe_load((Path(__file__).parent / "alerts_test.yml").read_text())
    names = {
        case["alertname"]
        for group in tested["tests"]
        for case in group.get("alert_rule_test", [])
        if case["exp_alerts"]
    }
    assert names == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("title", DASHBOARDS)
def test_the_dashboards_that_grafana_gets_are_what_the_code_gives(title: str) -> None:
    assert path_of(title).read_text() == render(title), "run `make dashboards`"
    asked = {target["expr"] for panel in json.loads(render(title))["panels"] for target in panel["targets"]}
    assert asked == {expression for panel in DASHBOARDS[title] for expression in panel.queries}


@pytest.mark.parametrize(("title", "panel"), PANELS, ids=[f"{title}: {panel.title}" for title, panel in PANELS])
def test_every_panel_has_data(watched: Watched, title: str, panel: Panel) -> None:
    series = read_panel(watched.prometheus, panel, watched.window)
    assert series, f"{title}: {panel.title}"
    assert not any("{{" in line.legend for line in series), [line.legend for line in series]


@pytest.mark.parametrize("rule", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_every_alert_can_be_evaluated(watched: Watched, rule: dict[str, Any]) -> None:
    watched.query(rule["expr"])
    firing = {alert["metric"]["alertname"] for alert in watched.query("ALERTS{alertstate='firing'}")}
    assert rule["alert"] not in firing - {"TimeRippleSuccessBurn"}


def test_no_rule_of_ours_has_an_error(watched: Watched) -> None:
    groups = httpx.get(f"{watched.prometheus}/api/v1/rules").json()["data"]["groups"]
    states = {rule["name"]: (rule["health"], rule.get("lastError")) for group in groups for rule in group["rules"]}
    assert set(states.values()) == {("ok", None)}, states


def test_prometheus_counts_the_ends_that_the_jobs_tell(watched: Watched) -> None:
    told = Counter((job["status"], (job["error"] or {}).get("code", "")) for job in watched.jobs)
    ends = watched.query(f"sum by (status, error_code) ({recorded('jobs_ended')})")
    # Prometheus has no empty labels.
    counted = {(end["metric"]["status"], end["metric"].get("error_code", "")): float(end["value"][1]) for end in ends}
    assert told == {end: count for end, count in counted.items() if count}
    assert {status for status, _ in told} == {"succeeded", "failed", "cancelled"}


def test_prometheus_counts_the_flops_that_the_jobs_tell_once_for_all_api_processes(watched: Watched) -> None:
    done = [job["metrics"]["attention"] for job in watched.jobs if job["status"] == "succeeded"]
    for kind in ("dense", "executed"):
        counted = watched.value(f"sum({recorded(f'attention_{kind}_flops')})")
        assert counted == pytest.approx(sum(attention[f"{kind}_flops"] for attention in done), rel=1e-12)
        assert len(watched.query(f"count by (instance) (timeripple_attention_{kind}_flops_total)")) == 2


def test_histograms_hold_every_succeeded_job_and_every_step(watched: Watched) -> None:
    done = [job["metrics"] for job in watched.jobs if job["status"] == "succeeded"]
    assert watched.value("sum(timeripple_job_seconds_count)") == len(done)
    starts = sum(job["attempts"] for job in watched.jobs)
    assert watched.value('sum(timeripple_stage_seconds_count{stage="queue"})') == starts
    for stage in ("text_encode", "denoise", "vae_decode", "mp4_encode", "store"):
        labels = f'stage="{stage}"'
        assert watched.value(f"sum(timeripple_stage_seconds_count{{{labels}}})") == len(done)
        seconds = watched.value(f"sum(timeripple_stage_seconds_sum{{{labels}}})")
        assert seconds == pytest.approx(sum(metrics["latency_s"][stage] for metrics in done))
    steps = [seconds for metrics in done for seconds in metrics["denoising_step_s"]]
    assert watched.value("sum(timeripple_denoising_step_seconds_count)") == len(steps)
    assert watched.value("sum(timeripple_denoising_step_seconds_sum)") == pytest.approx(sum(steps))


def test_what_was_lost_and_what_was_told_in_vain_is_counted(watched: Watched) -> None:
    assert (
        watched.value('sum(max without (instance) (timeripple_attempts_failed_total{error_code="worker_lost"}))') == 1
    )
    assert watched.value('timeripple_engine_losses_total{reason="died"}') == 1
    assert watched.value('timeripple_webhook_attempts_total{outcome="postponed"}') >= 2
    assert watched.value("sum(max without (instance) (timeripple_attention_fallback_calls_total))") > 0


@pytest.mark.parametrize("title", DASHBOARDS)
def test_a_dashboard_can_be_drawn_without_grafana(watched: Watched, title: str, tmp_path: Path) -> None:
    draw(watched.prometheus, title, watched.window, tmp_path / "dashboard.png")
    with Image.open(tmp_path / "dashboard.png") as picture:
        assert picture.width > 1000
        # More than paper.
        assert len(picture.convert("L").getcolors(256) or []) > 50
