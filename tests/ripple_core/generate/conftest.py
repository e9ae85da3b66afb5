"""A loaded pipeline of random weights, and requests for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ripple_core.contract.models import ModelSpec, find_model
from ripple_core.contract.request import GenerateRequest, ResolvedRequest
from ripple_core.contract.validate import resolve
from ripple_core.generate import LoadedModel, load_model

Ask = Callable[..., ResolvedRequest]


@pytest.fixture(scope="session")
def model(random_pipeline_folder: Path) -> LoadedModel:
    return load_model(find_model(str(random_pipeline_folder)))


@pytest.fixture(scope="session")
def ask() -> Ask:
    """A small request with reuse; keyword arguments change it."""

    def ask(spec: ModelSpec, image_sha256: str | None = None, **changes: Any) -> ResolvedRequest:
        fields = {
            "prompt": "a red circle",
            "width": 48,
            "height": 32,
            "num_frames": 9,
            "fps": 5,
            "num_inference_steps": 5,
            "seed": 7,
            # A grid this small runs dense in mode auto.
            "reuse": {"aggressiveness": 1.0, "mode": "channel"},
        }
        request = GenerateRequest.model_validate(fields | changes)
        return resolve(request, spec, image_sha256, [lora.name for lora in request.loras])

    return ask
