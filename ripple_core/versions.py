"""Versions of what a process runs."""

from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("timeripple", "torch", "diffusers", "triton")


def versions() -> dict[str, str]:
    """By package; "none" for one that is not installed."""
    return {package: _version(package) for package in _PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
