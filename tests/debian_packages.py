"""Debian's packages, unpacked into a folder with no need for root."""

import shutil
import subprocess
from pathlib import Path


def unpack(names: tuple[str, ...], folder: Path, with_needs: bool) -> None:
    """Download packages and unpack them.

    Args:
        names: of the packages.
        folder: to unpack into.
        with_needs: whether those come too that they need and the machine lacks.

    Raises:
        RuntimeError: when they cannot be had.
    """
    apt = folder / "apt"
    archives = apt / "archives"
    for path in (apt / "lists" / "partial", archives / "partial"):
        path.mkdir(parents=True, exist_ok=True)
    # Folders of our own: the machine's lists may be empty, and all of them are root's.
    settings = {
        "Dir::State::Lists": apt / "lists",
        "Dir::Cache": apt,
        "Dir::Cache::Archives": archives,
        "Debug::NoLocking": "true",
        "APT::Sandbox::User": "",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    take = ["install", "--yes", "--download-only", "--no-install-recommends"] if with_needs else ["download"]
    for command in (["update"], [*take, *names]):
        _run(archives, "apt-get", *options, "-q", *command)
    for package in archives.glob("*.deb"):
        _run(archives, "dpkg", "-x", str(package), str(folder))
    shutil.rmtree(apt)


def _run(folder: Path, *command: str) -> None:
    run = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {run.stderr}")
