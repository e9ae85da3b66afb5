"""Prometheus and promtool: those on the path, else Debian's package unpacked into a folder, with no need for root."""

import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

_NAMES = ("prometheus", "promtool")


def find_prometheus(cache: Path) -> tuple[Path, Path] | None:
    """Prometheus and promtool; None where they neither are nor can be had."""
    found = [shutil.which(name) for name in _NAMES]
    if all(found):
        return Path(str(found[0])), Path(str(found[1]))
    cache.mkdir(parents=True, exist_ok=True)
    binaries = cache / "usr/bin/prometheus", cache / "usr/bin/promtool"
    with FileLock(cache / "lock"):
        if not all(binary.exists() for binary in binaries):
            _download(cache)
    return binaries if all(binary.exists() for binary in binaries) else None


def _download(cache: Path) -> None:
    if shutil.which("apt-get") is None:
        return
    lists = cache / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    # Our own lists: the machine's may be empty, and are root's.
    options = ["-o", f"Dir::State::Lists={lists}", "-o", "APT::Sandbox::User="]
    for command in (["update", "-q"], ["download", "-q", "prometheus"]):
        if subprocess.run(["apt-get", *options, *command], cwd=cache, check=False, capture_output=True).returncode:
            return
    for package in cache.glob("prometheus_*.deb"):
        subprocess.run(["dpkg", "-x", package, cache], check=True)
        package.unlink()
    shutil.rmtree(lists)
