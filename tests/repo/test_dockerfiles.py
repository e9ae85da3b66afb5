"""The Dockerfiles and what they build from, without a Docker engine."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from docker.utils.build import exclude_paths
from e2e.compose import FILE, load
from e2e.dockerfile import ROOT, read_stages

DOCKERFILES = {name: ROOT / f"docker/{name}.Dockerfile" for name in ("server", "worker")}
SERVICES = load(FILE, values={"REDIS_PASSWORD": "secret"})["services"]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def ignore_patterns() -> list[str]:
    return [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("path", DOCKERFILES.values(), ids=DOCKERFILES)
def test_hadolint_finds_nothing(path: Path) -> None:
    hadolint = str(Path(sys.executable).parent / "hadolint")
    command = [hadolint, "--config", str(ROOT / "docker/.hadolint.yaml"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_built_in_one_stage_from_its_lock_and_holds_the_result(name: str) -> None:
    build, final = read_stages(DOCKERFILES[name])
    installs = [run.partition("pip install")[2] for run in build.all("RUN") if "pip install" in run]
    assert [line.split() for line in installs] == [
        ["--no-cache-dir", "--require-hashes", "-r", f"{name}.txt"],
        ["--no-cache-dir", "--no-deps", "."],
    ]
    assert build.sources[0] == f"docker/requirements/{name}.txt"
    assert not any("pip" in run for run in final.all("RUN"))
    assert final.all("COPY") == ["--from=build /venv /venv"]


def test_all_stages_begin_with_the_same_exact_release_of_python() -> None:
    (base,) = {stage.base for path in DOCKERFILES.values() for stage in read_stages(path)}
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", base)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_what_compose_runs_and_not_as_root(name: str) -> None:
    final = read_stages(DOCKERFILES[name])[-1]
    assert final.command == SERVICES[name]["command"]
    # A number, so that Kubernetes can tell that it is not root.
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", final.user or "")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_is_in_the_build_context(name: str) -> None:
    context = exclude_paths(ROOT, ignore_patterns())
    for source in read_stages(DOCKERFILES[name])[0].sources:
        assert source in context


def test_data_secrets_and_environments_never_enter_a_build(tmp_path: Path) -> None:
    wanted = {"server/app.py", "openapi/timeripple_client/client.py"}
    unwanted = {".env", ".venv/bin/python", "ripple-data/videos/v.mp4", "report/r.json", "server/__pycache__/app.pyc"}
    for name in wanted | unwanted:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = {path for path in exclude_paths(tmp_path, ignore_patterns()) if (tmp_path / path).is_file()}
    assert found == wanted


def test_nothing_is_in_the_build_context_but_what_is_copied() -> None:
    copied = {source for path in DOCKERFILES.values() for source in read_stages(path)[0].sources}
    # Docker itself needs the list of what to leave out.
    rest = {path for path in exclude_paths(ROOT, ignore_patterns()) if not path.startswith(tuple(copied))}
    assert rest <= {".dockerignore", "docker", "docker/requirements"}


@pytest.mark.parametrize("path", DOCKERFILES.values(), ids=DOCKERFILES)
def test_all_that_the_package_is_built_from_is_copied(path: Path) -> None:
    packages = {name.rstrip("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    elsewhere = PROJECT["tool"]["setuptools"]["package-dir"]
    folders = {elsewhere.get(name, name).split("/")[0] for name in packages}
    files = {"pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert folders | files <= set(read_stages(path)[0].sources)
