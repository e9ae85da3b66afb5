"""Chromium: the one on the path, else Debian's package unpacked into a folder, with no need for root."""

import platform
import shutil
from pathlib import Path

from debian_packages import unpack
from filelock import FileLock

_NAMES = ("chromium", "chromium-browser", "google-chrome")

# A page without any font shows no text, and Playwright's driver needs libatomic.
_PACKAGES = ("chromium", "fonts-dejavu-core", "libatomic1")

# Of no use to a browser without a window.
_SUPERFLUOUS = ("applications", "bug", "doc", "icons", "lintian", "locale", "man", "themes")

# The machine's own configuration comes first, where it has one.
_FONTS = """\
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
  <dir>/usr/share/fonts</dir>
  <dir>{folder}/usr/share/fonts</dir>
  <cachedir>{folder}/fontconfig</cachedir>
  <alias><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
  <alias><family>serif</family><prefer><family>DejaVu Serif</family></prefer></alias>
  <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
"""


def find_chromium(cache: Path) -> tuple[Path, dict[str, str]] | None:
    """Chromium, and what it and Playwright need in the environment; None where it neither is nor is Debian's to give.

    Raises:
        RuntimeError: on Debian, when the package cannot be had.
    """
    for name in _NAMES:
        if found := shutil.which(name):
            return Path(found), {}
    if not _is_debian():
        return None
    folder = cache / "root"
    complete = cache / "complete"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "lock"):
        if not complete.exists():
            unpack(_PACKAGES, folder, with_needs=True)
            for name in _SUPERFLUOUS:
                shutil.rmtree(folder / "usr/share" / name, ignore_errors=True)
            (folder / "fonts.conf").write_text(_FONTS.format(folder=folder))
            complete.touch()
    return folder / "usr/lib/chromium/chromium", _environment(folder)


def _is_debian() -> bool:
    try:
        return platform.freedesktop_os_release()["ID"] == "debian"
    except OSError:
        return False


def _environment(folder: Path) -> dict[str, str]:
    libraries = sorted({str(path.parent) for pattern in ("*.so", "*.so.*") for path in folder.rglob(pattern)})
    return {"LD_LIBRARY_PATH": ":".join(libraries), "FONTCONFIG_FILE": str(folder / "fonts.conf")}
