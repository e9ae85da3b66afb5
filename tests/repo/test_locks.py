"""What the images install is pinned, with hashes, and is what pyproject.toml asks for. `make lock` writes it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {"server": ("s3", "otel"), "worker": ("worker", "s3", "otel")}
# Where images run; in markers of pyproject.toml and of the lock files.
IMAGE = {
    **default_environment(),
    "python_version": "3.12",
    "python_full_version": "3.12.13",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "extra": "",
}
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}(?= |$)")


def text_of(name: str) -> str:
    return (ROOT / "docker" / "requirements" / f"{name}.txt").read_text(encoding="utf-8")


def pins(name: str) -> list[tuple[Requirement, int]]:
    """Every entry with the number of its hashes."""
    lines = [line for line in text_of(name).splitlines() if not line.lstrip().startswith("#")]
    entries = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(Requirement(entry.partition(" --hash")[0]), len(HASH.findall(entry))) for entry in entries]


def locked(name: str, environment: dict[str, str] = IMAGE) -> dict[str, str]:
    """Versions by package; those that an image gets if no other environment is given."""
    wanted = [pin for pin, _ in pins(name) if pin.marker is None or pin.marker.evaluate(environment)]
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in wanted}
    assert len(versions) == len(wanted)
    return versions


@pytest.mark.parametrize("name", EXTRAS)
def test_every_entry_is_one_version_with_hashes(name: str) -> None:
    assert len(pins(name)) > len(PROJECT["dependencies"])
    for pin, num_hashes in pins(name):
        assert re.fullmatch(r"==[\w.!+]+", str(pin.specifier)), pin
        assert num_hashes > 0, pin


@pytest.mark.parametrize("name", EXTRAS)
def test_what_the_project_asks_for_is_in_it_as_it_asks(name: str) -> None:
    extras = [PROJECT["optional-dependencies"][extra] for extra in EXTRAS[name]]
    versions = locked(name)
    for wanted in map(Requirement, [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]):
        if wanted.marker is None or wanted.marker.evaluate(IMAGE):
            version = versions.get(canonicalize_name(wanted.name))
            assert version is not None, f"{wanted} is not in {name}.txt: make lock"
            assert wanted.specifier.contains(version, prereleases=True), f"{wanted}, not {version}: make lock"


def test_the_server_has_no_torch_and_the_versions_of_the_worker() -> None:
    server, worker = locked("server"), locked("worker")
    assert not {"torch", "diffusers", "transformers", "numpy"} & server.keys()
    assert server.items() <= worker.items()


def test_torch_is_the_one_of_the_makefile() -> None:
    default = re.search(r"^TORCH \?= torch==(.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert default is not None
    assert locked("worker")["torch"] == default[1]


@pytest.mark.parametrize("name", EXTRAS)
def test_nothing_says_where_the_files_come_from(name: str) -> None:
    text = text_of(name)
    assert "://" not in text
    assert re.findall(r"^-.*|(?:^|\s)/\S+|\S+ @ \S+", text, re.MULTILINE) == []


@pytest.mark.slow
def test_the_server_can_be_installed_from_it(tmp_path: Path) -> None:
    """As its image does it."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path], check=True)
    pip = [tmp_path / "bin" / "python", "-m", "pip"]
    lock = ROOT / "docker" / "requirements" / "server.txt"
    subprocess.run([*pip, "install", "--quiet", "--require-hashes", "-r", lock], check=True)
    subprocess.run([*pip, "check"], check=True)
    listed = subprocess.run([*pip, "list", "--format=freeze"], capture_output=True, text=True, check=True).stdout
    installed = {canonicalize_name(name): version for name, version in re.findall("(.+)==(.+)", listed)}
    assert locked("server", {**default_environment()}).items() <= installed.items()
