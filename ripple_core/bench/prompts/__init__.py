"""The two fixed prompt sets: one to tune with, one to report with. They share no prompt.

Nothing that chooses a default, a threshold or a profile may read the reporting set; a test holds that.
"""

from importlib.resources import files


def tuning_prompts() -> list[str]:
    """Prompts for choosing anything."""
    return _read("tuning.txt")


def reporting_prompts() -> list[str]:
    """Prompts for published figures only; the built-in model never saw their scenes in training."""
    return _read("reporting.txt")


def _read(name: str) -> list[str]:
    return files(__name__).joinpath(name).read_text(encoding="utf-8").splitlines()
