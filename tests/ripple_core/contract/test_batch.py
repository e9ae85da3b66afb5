"""Which requests may share a call of the pipeline."""

from typing import Any

import pytest
from samples import REQUEST

from ripple_core.contract.batch import can_share
from ripple_core.contract.request import LoraSettings, OutputSettings, ResolvedRequest, ReuseSettings

FREE: dict[str, Any] = {
    "prompt": "a blue square",
    "negative_prompt": "red",
    "seed": 2,
    "fps": 24,
    "output": OutputSettings(format="gif"),
    "preview": True,
}
SHARED: dict[str, Any] = {
    "model": "other",
    "width": 128,
    "height": 128,
    "num_frames": 9,
    "num_inference_steps": 5,
    "guidance_scale": 1.0,
    "reuse": ReuseSettings(aggressiveness=0.25),
}
ALONE: dict[str, Any] = {
    "loras": [LoraSettings(name="style")],
    "quality_check": True,
    "image_sha256": "0" * 64,
}


def test_every_field_is_thought_of() -> None:
    """A new field of a request must be put into one of the three."""
    assert FREE.keys() | SHARED.keys() | ALONE.keys() == ResolvedRequest.model_fields.keys()


def test_what_belongs_to_one_video_may_differ() -> None:
    assert can_share(REQUEST, REQUEST.model_copy(update=FREE))


@pytest.mark.parametrize("name", SHARED)
def test_what_the_pipeline_is_told_once_must_agree(name: str) -> None:
    other = REQUEST.model_copy(update={name: SHARED[name]})
    assert not can_share(REQUEST, other)
    assert can_share(other, other)


@pytest.mark.parametrize("name", ALONE)
def test_what_changes_the_pipeline_is_made_alone(name: str) -> None:
    other = REQUEST.model_copy(update={name: ALONE[name]})
    assert not can_share(other, other)
    assert not can_share(REQUEST, other)
