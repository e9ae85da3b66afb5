"""A model folder that a test may damage."""

import shutil
from pathlib import Path

import pytest

from ripple_core.contract.models import BUILTIN_MODEL_FOLDER


@pytest.fixture
def copied_model_folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUILTIN_MODEL_FOLDER, tmp_path / "model"))
