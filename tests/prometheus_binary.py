"""Prometheus and promtool: those on the path, else Debian's package unpacked into a folder, with no need for root."""

import shutil
from contextlib import suppress
from pathlib import Path

from debian_packages import unpack
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
        if not all(binary.exists() for binary in binaries) and shutil.which("apt-get"):
            with suppress(RuntimeError):
                unpack(("prometheus",), cache, with_needs=False)
    return binaries if all(binary.exists() for binary in binaries) else None
