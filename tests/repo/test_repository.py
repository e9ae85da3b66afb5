"""The repository itself: what loads what, what lies where, what is documented."""

import subprocess
import sys
from pathlib import Path

import pytest

import ripple_core
from server.settings import ServerSettings
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
TOP_LEVEL = {
    *("server", "worker", "ripple_core", "docker", "tests", "openapi", ".ci"),
    *("docker-compose.yml", "pyproject.toml", "README.md", "Makefile", "LICENSE", "CHANGELOG.md"),
}


@pytest.mark.parametrize(
    "module",
    ["ripple_core", "ripple_core.cli", "ripple_core.contract.store", "server.app", "worker.task", "worker.loop"],
)
def test_light_parts_load_no_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'diffusers', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("module", "stranger"), [("server.app", "worker"), ("worker.loop", "server")])
def test_server_and_worker_do_not_load_each_other(module: str, stranger: str) -> None:
    code = f"import sys, {module}; print({stranger!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_public_names_resolve() -> None:
    for name in ripple_core.__all__:
        assert getattr(ripple_core, name).__name__ == name


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [Path(line) for line in listed.stdout.splitlines()]


def test_the_top_level_holds_nothing_unexpected() -> None:
    names = {path.parts[0] for path in tracked()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_only_weights_are_large() -> None:
    large = [path for path in tracked() if (ROOT / path).is_file() and (ROOT / path).stat().st_size > 500_000]
    assert all(path.suffix == ".safetensors" for path in large)


def test_every_setting_is_documented() -> None:
    readme = (ROOT / "README.md").read_text()
    names = {f"RIPPLE_{name.upper()}" for name in (*ServerSettings.model_fields, *WorkerSettings.model_fields)}
    names = names - {"RIPPLE_REDIS_URL"} | {"REDIS_URL"}
    assert [name for name in sorted(names) if name not in readme] == []
