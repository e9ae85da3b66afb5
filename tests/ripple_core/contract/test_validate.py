"""Defaults are filled in and sizes checked against the model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ripple_core.contract.errors import InvalidRequest
from ripple_core.contract.models import CATALOGUE, ModelSpec
from ripple_core.contract.request import GenerateRequest, ReuseSettings
from ripple_core.contract.validate import resolve

SPEC = ModelSpec(id="m", source="/m", size_multiple=16, frame_multiple=4, max_size=256, max_frames=65)


def test_what_is_left_out_takes_the_models_default() -> None:
    resolved = resolve(GenerateRequest(prompt="  a cat  ", fps=3), CATALOGUE["Wan-AI/Wan2.2-TI2V-5B-Diffusers"])
    assert (resolved.width, resolved.height, resolved.num_frames, resolved.fps) == (1280, 704, 121, 3)
    assert resolved.prompt == "a cat"
    assert resolved.reuse == ReuseSettings(aggressiveness=0.5, mode="auto")


def test_a_drawn_seed_is_shown_and_differs() -> None:
    seeds = {
        resolve(GenerateRequest(prompt="x", width=16, height=16, num_frames=1), SPEC).seed for _ in range(5)
    }  # fmt: skip
    assert len(seeds) > 1


@pytest.mark.parametrize(
    ("value", "nearest"), [(63, (48, 64)), (17, (16, 32)), (250, (240, 256)), (257, (256,)), (4096, (256,))]
)
def test_a_wrong_width_names_the_nearest(value: int, nearest: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolve(GenerateRequest(prompt="x", width=value, height=16, num_frames=1), SPEC)
    (violation,) = caught.value.violations
    assert (violation.field, violation.nearest) == ("width", nearest)
    assert "multiple of 16 from 16 to 256" in violation.message


@pytest.mark.parametrize(("value", "nearest"), [(2, (1, 5)), (16, (13, 17)), (66, (65,)), (1000, (65,))])
def test_a_wrong_frame_count_names_the_nearest(value: int, nearest: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolve(GenerateRequest(prompt="x", width=16, height=16, num_frames=value), SPEC)
    assert [(v.field, v.nearest) for v in caught.value.violations] == [("num_frames", nearest)]


def test_all_wrong_fields_are_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolve(GenerateRequest(prompt="x", width=17, height=18, num_frames=3), SPEC)
    assert [violation.field for violation in caught.value.violations] == ["width", "height", "num_frames"]


@given(width=st.integers(16, 4096), frames=st.integers(1, 1025))
def test_the_nearest_values_are_accepted(width: int, frames: int) -> None:
    try:
        resolve(GenerateRequest(prompt="x", width=width, height=16, num_frames=frames), SPEC)
    except InvalidRequest as error:
        for violation in error.violations:
            for value in violation.nearest:
                good = {"width": 16, "height": 16, "num_frames": 1} | {violation.field: value}
                resolve(GenerateRequest(prompt="x", **good), SPEC)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": ""},
        {"prompt": " \n "},
        {"prompt": "x" * 2001},
        {"prompt": 3},
        {"prompt": "x", "width": "64"},
        {"prompt": "x", "guidance_scale": float("nan")},
        {"prompt": "x", "seed": -1},
        {"prompt": "x", "num_inference_steps": 0},
        {"prompt": "x", "aggressiveness": 0.5},
        {"prompt": "x", "reuse": {"aggressiveness": 1.01}},
        {"prompt": "x", "reuse": {"aggressiveness": float("inf")}},
        {"prompt": "x", "reuse": {"mode": "fastest"}},
        {"prompt": "x", "reuse": {"speed": 1}},
    ],
    ids=str,
)
def test_a_malformed_request_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GenerateRequest.model_validate(wrong)
