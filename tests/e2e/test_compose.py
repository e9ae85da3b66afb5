"""docker-compose.yml as it stands: the compose specification, its variables, how its services are shut in.

No Docker engine takes part; test_compose_run.py starts the services' own commands.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.compose import CPU_FILE, FILE, ROOT, load, variables
from e2e.dockerfile import Stage, read_stages

from ripple_core.tracing import ENDPOINT
from server.settings import ServerSettings
from worker.settings import WorkerSettings

VALUES = {"REDIS_PASSWORD": "secret"}
WITH_GPU = load(FILE, values=VALUES)
WITHOUT_GPU = load(FILE, CPU_FILE, values=VALUES)
SERVICES: dict[str, dict[str, Any]] = WITH_GPU["services"]
OURS = ("server", "worker")
SETTINGS = {f"RIPPLE_{name.upper()}" for kind in (ServerSettings, WorkerSettings) for name in kind.model_fields} | {
    "REDIS_URL"
}
EXAMPLE = (ROOT / ".env.example").read_text()
# As their Dockerfiles say.
NOT_ROOT = {"prom/prometheus": "nobody", "grafana/grafana": "472"}
# MinIO's image has a /data of root's, which a new volume inherits; no capability is left to this root.
ROOT_WITHOUT_CAPABILITIES = {"minio/minio"}
EXACT_TAG = re.compile(
    r"[\w./-]+:(v?\d+\.\d+\.\d+(-\w+)?|RELEASE\.\d{4}(-\d\d){2}T(\d\d-){2}\d\dZ)(@sha256:[0-9a-f]{64})?"
)


def image(name: str) -> Stage:
    """What a service of ours is built to."""
    build = SERVICES[name]["build"]
    return read_stages(ROOT / build["context"] / build["dockerfile"])[-1]


def seconds(duration: str) -> int:
    assert duration.endswith("s")
    return int(duration[:-1])


def check_specification(config: dict[str, Any], folder: Path) -> int:
    """Return code of a check against the specification's own schema."""
    (folder / "compose.json").write_text(json.dumps(config))
    check = str(Path(sys.executable).parent / "check-jsonschema")
    command = [check, "--builtin-schema", "vendor.compose-spec", f"{folder}/compose.json"]
    return subprocess.run(command, check=False, capture_output=True).returncode


@pytest.mark.parametrize("config", [WITH_GPU, WITHOUT_GPU], ids=["gpu", "cpu"])
def test_the_files_follow_the_compose_specification(config: dict[str, Any], tmp_path: Path) -> None:
    assert check_specification(config, tmp_path) == 0
    misspelt = SERVICES["redis"] | {"helthcheck": SERVICES["redis"]["healthcheck"]}
    assert check_specification(config | {"services": {"redis": misspelt}}, tmp_path) == 1


def test_the_override_takes_the_gpu_away_and_nothing_else() -> None:
    (device,) = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    without = {key: value for key, value in SERVICES["worker"].items() if key != "deploy"}
    assert WITH_GPU | {"services": SERVICES | {"worker": without}} == WITHOUT_GPU


@pytest.mark.parametrize("values", [{}, {"REDIS_PASSWORD": ""}], ids=["unset", "as in the example"])
def test_nothing_starts_before_redis_has_a_password(values: dict[str, str]) -> None:
    assert re.search("^REDIS_PASSWORD=$", EXAMPLE, re.MULTILINE)
    with pytest.raises(ValueError, match=r"REDIS_PASSWORD: set it in \.env"):
        load(FILE, values=values)


def test_every_variable_is_in_the_example_and_has_a_default_or_is_asked_for() -> None:
    used = set(variables(load(FILE)["services"]))
    assert {variable.operator for variable in used} == {":-", ":?"}
    assert {variable.name for variable in used} <= set(re.findall(r"^#?(\w+)=", EXAMPLE, re.MULTILINE))


def test_the_example_names_nothing_that_is_not_used() -> None:
    interpolated = {variable.name for variable in variables(load(FILE)["services"])}
    read_by_others = {"COMPOSE_PROFILES", "AWS_ENDPOINT_URL", "HF_TOKEN", ENDPOINT}
    assert set(re.findall(r"^#?(\w+)=", EXAMPLE, re.MULTILINE)) <= interpolated | SETTINGS | read_by_others
    for name in OURS:
        assert SERVICES[name]["env_file"] == [{"path": ".env", "required": False}]


def test_the_example_names_every_profile() -> None:
    (named,) = re.findall("^#COMPOSE_PROFILES=(.+)$", EXAMPLE, re.MULTILINE)
    profiles = {profile for service in SERVICES.values() for profile in service.get("profiles", [])}
    assert set(named.split(",")) == profiles


def test_defaults_in_the_example_are_those_of_the_file() -> None:
    defaults = {(variable.name, variable.word) for variable in variables(load(FILE)["services"]) if variable.word}
    shown = dict(re.findall(r"^#(\w+)=(.+)$", EXAMPLE, re.MULTILINE))
    for name in ("RIPPLE_PUBLISH", "RIPPLE_PORT", "RIPPLE_LOG_FORMAT", "GRAFANA_PORT", "PROMETHEUS_PORT"):
        assert (name, shown[name]) in defaults


@pytest.mark.parametrize("name", OURS)
def test_every_setting_of_a_container_exists(name: str) -> None:
    environment = image(name).environment | SERVICES[name]["environment"]
    assert {key for key in environment if key.startswith("RIPPLE_")} <= SETTINGS


@pytest.mark.parametrize("name", SERVICES)
def test_dependencies_can_meet_their_condition(name: str) -> None:
    for target, rule in SERVICES[name].get("depends_on", {}).items():
        needs_health_check = rule["condition"] == "service_healthy"
        assert needs_health_check == ("healthcheck" in SERVICES[target])
        # Without its profile a service is not there.
        shared = SERVICES[target].get("profiles") in (None, SERVICES[name].get("profiles"))
        assert rule.get("required", True) == shared


def test_every_service_that_stays_has_a_health_check() -> None:
    for service in SERVICES.values():
        assert ("healthcheck" in service) == (service["restart"] != "no")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_and_shut_in(name: str) -> None:
    service = SERVICES[name]
    assert "build" in service or EXACT_TAG.fullmatch(service["image"])
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "ipc", "network_mode", "userns_mode"} & set(service)
    base = service.get("image", "").partition(":")[0]
    user = service.get("user") or (image(name).user if "build" in service else NOT_ROOT.get(base))
    assert (user or "root").split(":")[0] not in ("0", "root") or base in ROOT_WITHOUT_CAPABILITIES


def test_only_the_api_and_what_watches_it_are_published_and_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "server": ["127.0.0.1:8000:8000"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    for name in published:
        # A port is published by way of a network that is not internal.
        assert any(not (WITH_GPU["networks"][network] or {}).get("internal") for network in SERVICES[name]["networks"])


def test_prometheus_and_grafana_have_a_way_out_that_is_nobody_elses() -> None:
    users = {name for name, service in SERVICES.items() if "operators" in service["networks"]}
    assert users == {"prometheus", "grafana"}
    assert WITH_GPU["networks"]["operators"] is None
    for name in users:
        assert set(SERVICES[name]["networks"]) == {"operators", "monitoring"}


def test_redis_is_out_of_reach_for_all_but_those_who_use_it() -> None:
    users = {name for name, service in SERVICES.items() if "store" in service["networks"]}
    assert users == {"redis", "server", "worker", "minio", "bucket"}
    assert WITH_GPU["networks"]["store"] == {"internal": True}


@pytest.mark.parametrize("name", SERVICES)
def test_volumes_are_declared_and_folders_exist(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        assert (ROOT / source).is_dir() if source.startswith(".") else source in WITH_GPU["volumes"]


@pytest.mark.parametrize("name", OURS)
def test_a_volume_of_ours_belongs_to_its_user(name: str) -> None:
    """An empty volume takes the owner of the folder that it covers in the image."""
    covered = {volume.split(":")[1] for volume in SERVICES[name]["volumes"]}
    made = re.search(r"--uid (\d+) .*install -d -o ripple -g ripple ((?:/\w+ ?)+)", "\n".join(image(name).all("RUN")))
    assert made is not None
    assert image(name).user == f"{made[1]}:{made[1]}"
    assert covered == set(made[2].split())
    assert covered == set(image(name).all("VOLUME")[0].split())


@pytest.mark.parametrize("name", OURS)
def test_whatever_is_written_goes_into_a_volume(name: str) -> None:
    writable = {volume.split(":")[1] for volume in SERVICES[name]["volumes"] if not volume.endswith(":ro")}
    environment = image(name).environment | SERVICES[name]["environment"]
    folders = {key: value for key, value in environment.items() if value.startswith("/") and key != "PATH"}
    assert folders
    assert {"/" + folder.split("/")[1] for folder in folders.values()} <= writable
    assert SERVICES[name]["tmpfs"] == ["/tmp"]  # noqa: S108 - in the container


def test_a_worker_that_is_stopped_has_time_to_hand_its_job_back() -> None:
    fields = WorkerSettings.model_fields
    # The last ten: for Redis to come back.
    longest = fields["drain_seconds"].default + fields["cancel_grace_seconds"].default + 10
    assert seconds(SERVICES["worker"]["stop_grace_period"]) > longest


def test_a_worker_has_time_to_load_before_it_counts_as_unhealthy() -> None:
    longest = WorkerSettings.model_fields["load_seconds"].default
    assert seconds(SERVICES["worker"]["healthcheck"]["start_period"]) >= longest


@pytest.mark.parametrize("name", ["redis", "prometheus"])
def test_what_is_read_again_at_a_start_has_time(name: str) -> None:
    assert seconds(SERVICES[name]["healthcheck"]["start_period"]) == 300


def test_an_alertmanager_can_be_named_by_uncommenting() -> None:
    text = (ROOT / "docker/prometheus/prometheus.yml").read_text()
    config = yaml.safe_load(re.sub("^#(?=alerting:|  )", "", text, flags=re.MULTILINE))
    ((static,),) = (one["static_configs"] for one in config.pop("alerting")["alertmanagers"])
    assert static["targets"]
    # The rest stays as it is.
    assert config == yaml.safe_load(text)


def test_prometheus_finds_both_at_one_address_each() -> None:
    config = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yml").read_text())
    api, worker = config["scrape_configs"]
    (static,), (dns,) = api["static_configs"], worker["dns_sd_configs"]
    assert static["targets"] == ["server:" + SERVICES["server"]["environment"]["RIPPLE_METRICS_PORT"]]
    assert (dns["names"], str(dns["port"])) == (["worker"], SERVICES["worker"]["environment"]["RIPPLE_METRICS_PORT"])
    for name in OURS:
        assert SERVICES[name]["environment"]["RIPPLE_METRICS_HOST"] == "0.0.0.0"  # noqa: S104 - in the container
        # A name stands for an address in each network that two services share.
        assert set(SERVICES[name]["networks"]) & set(SERVICES["prometheus"]["networks"]) == {"monitoring"}


def test_grafana_finds_its_dashboards_and_their_source() -> None:
    mounts = {target: ROOT / source for source, target, _ in map(split_mount, SERVICES["grafana"]["volumes"][:3])}
    sources = yaml.safe_load((mounts["/etc/grafana/provisioning/datasources"] / "prometheus.yml").read_text())
    providers = yaml.safe_load((mounts["/etc/grafana/provisioning/dashboards"] / "timeripple.yml").read_text())
    assert sources["datasources"][0]["url"] == "${PROMETHEUS_URL}"
    dashboards = list(mounts[providers["providers"][0]["options"]["path"]].glob("*.json"))
    assert dashboards
    for path in dashboards:
        used = set(re.findall(r'"datasource": \{[^}]*"uid": "([^"]+)"', path.read_text()))
        assert used == {sources["datasources"][0]["uid"]}


def split_mount(volume: str) -> tuple[str, str, str]:
    source, target, mode = volume.split(":")
    return source, target, mode


def test_grafana_refuses_to_start_with_its_own_password() -> None:
    environment = SERVICES["grafana"]["environment"]
    done = subprocess.run(
        SERVICES["grafana"]["entrypoint"], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "set GRAFANA_PASSWORD in .env\n")


def test_the_bucket_that_is_made_is_the_one_that_is_used(tmp_path: Path) -> None:
    """With `mc`, which is in MinIO's image only, replaced by one that tells how it was called."""
    (tmp_path / "mc").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    (tmp_path / "mc").chmod(0o755)
    values = VALUES | {"RIPPLE_STORE_URL": "s3://films/some/prefix", "AWS_SECRET_ACCESS_KEY": "key"}
    service = load(FILE, values=values)["services"]["bucket"]
    environment = service["environment"] | {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(service["entrypoint"], env=environment, check=True)
    assert (tmp_path / "calls").read_text().splitlines() == [
        "alias set here http://minio:9000 timeripple key",
        "mb --ignore-existing here/films",
    ]
