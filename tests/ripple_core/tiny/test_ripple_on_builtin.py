"""Mode ripple on the built-in model: a trained model's queries and keys, not random ones."""

import numpy as np
import pytest

from ripple_core.contract.models import find_model
from ripple_core.contract.request import GenerateRequest, ReuseSettings
from ripple_core.contract.validate import resolve
from ripple_core.generate import GeneratedFrames, LoadedModel, generate_frames, load_model
from ripple_core.generate.difference import psnr_db

STEPS = 6


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(find_model("builtin"))


def clip(model: LoadedModel, seed: int, aggressiveness: float) -> GeneratedFrames:
    request = GenerateRequest(
        prompt="a blue ring moving left on a black background",
        seed=seed,
        num_inference_steps=STEPS,
        reuse=ReuseSettings(aggressiveness=aggressiveness),
    )
    return generate_frames(model, resolve(request, model.spec))


@pytest.mark.parametrize("seed", [0, 1])
def test_more_aggressiveness_saves_more_of_the_same_video(model: LoadedModel, seed: int) -> None:
    """In mode auto, which runs ripple at this size; one step of the six stays dense."""
    dense = clip(model, seed, 0.0)
    clips = [clip(model, seed, value) for value in (0.1, 0.4, 0.7, 1.0)]
    savings = [found.report.savings for found in clips]
    assert [found.report.mode for found in clips] == ["ripple"] * 4
    assert all(found.report.fallbacks == {} for found in clips)
    assert savings == sorted(savings)
    assert savings[0] > 0
    assert savings[-1] > 0.5
    # Still the same scene: an unrelated one lies about 15 dB away.
    assert all((psnr_db(dense.frames, found.frames) or np.inf) > 22 for found in clips)
