"""Frames that are no video: found before anything is written, and tried again without reuse."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ripple_core.contract.errors import InvalidOutput
from ripple_core.contract.metrics import Retry
from ripple_core.contract.models import BUILTIN_MODEL_FOLDER, find_model
from ripple_core.generate import LoadedModel, generate_frames, generate_video, load_model
from ripple_core.generate.check import problem_with_frames, problem_with_latents

PIXELS = {"output": {"format": "zip"}}
DENSE = {"aggressiveness": 1.0, "mode": "dense"}
TRIED_DENSE = Retry(reason="invalid_output", remedy="dense_attention")


@contextmanager
def spoilt(model: LoadedModel, calls: range, value: float) -> Iterator[None]:
    """Within, some calls of the transformer give a value everywhere."""
    seen: list[int] = []

    def spoil(_module: Any, _args: Any, output: Any) -> Any:
        seen.append(len(seen))
        return (torch.full_like(output[0], value),) if seen[-1] in calls else output

    hook = model.pipe.transformer.register_forward_hook(spoil)
    yield
    hook.remove()


def test_broken_weights_of_the_built_in_model_give_an_error_and_no_file(ask: Any, tmp_path: Path) -> None:
    broken = load_model(find_model(str(BUILTIN_MODEL_FOLDER)))
    with torch.no_grad():
        broken.pipe.transformer.blocks[0].ffn.net[2].bias[0] = torch.nan
    with pytest.raises(InvalidOutput, match="NaN") as raised:
        generate_video(broken, ask(broken.spec, num_inference_steps=2), tmp_path)
    assert raised.value.code == "invalid_output"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_spoilt_run_is_done_again_without_reuse(model: LoadedModel, ask: Any, tmp_path: Path, value: float) -> None:
    """The second video is the dense one, and says so."""
    # Two calls a step; the last step of the first run.
    with spoilt(model, range(8, 10), value):
        metrics = generate_video(model, ask(model.spec, **PIXELS), tmp_path)
    dense = generate_video(model, ask(model.spec, **PIXELS, reuse=DENSE), tmp_path)
    assert metrics.retries == [TRIED_DENSE]
    assert metrics.output == dense.output
    assert metrics.attention == dense.attention
    assert (metrics.attention.mode, metrics.attention.savings, dense.retries) == ("dense", 0, [])


def test_the_second_try_may_fail_too(model: LoadedModel, ask: Any, tmp_path: Path) -> None:
    with spoilt(model, range(1000), torch.nan), pytest.raises(InvalidOutput):
        generate_video(model, ask(model.spec), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("reuse", "retry_dense"), [({}, False), (DENSE, True), ({"mode": "auto"}, True)], ids=["off", "dense", "too-short"]
)
def test_what_ran_dense_is_not_tried_again(
    model: LoadedModel, ask: Any, tmp_path: Path, reuse: dict[str, Any], retry_dense: bool
) -> None:
    steps: list[int] = []
    asked = ask(model.spec, reuse={"aggressiveness": 1.0, "mode": "channel"} | reuse)
    with spoilt(model, range(10), torch.nan), pytest.raises(InvalidOutput):
        generate_video(model, asked, tmp_path, lambda p: steps.append(p.step), retry_dense=retry_dense)
    assert steps == sorted(steps)


def test_latents_that_are_none_are_not_decoded(model: LoadedModel, ask: Any) -> None:
    stages: list[str] = []
    with spoilt(model, range(1000), torch.nan), pytest.raises(InvalidOutput, match="latents"):
        generate_frames(model, ask(model.spec), lambda progress: stages.append(progress.stage))
    assert "vae_decode" not in stages


def test_a_vae_that_decodes_to_no_numbers_is_found(random_pipeline_folder: Path, ask: Any) -> None:
    broken = load_model(find_model(str(random_pipeline_folder)))
    with torch.no_grad():
        broken.pipe.vae.decoder.conv_out.bias[1] = torch.nan
    with pytest.raises(InvalidOutput, match="frames hold NaN"):
        generate_frames(broken, ask(broken.spec))


def test_a_black_video_is_found(random_pipeline_folder: Path, ask: Any, tmp_path: Path) -> None:
    broken = load_model(find_model(str(random_pipeline_folder)))
    with torch.no_grad():
        broken.pipe.vae.decoder.conv_out.weight.zero_()
        broken.pipe.vae.decoder.conv_out.bias.fill_(-1)
    with pytest.raises(InvalidOutput, match="are black"):
        generate_video(broken, ask(broken.spec, num_inference_steps=1), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_a_problem() -> None:
    frames = np.zeros((3, 8, 8, 3), np.float32)
    assert problem_with_frames(frames) == "All frames are black"
    assert problem_with_frames(frames + np.float32([0.1, 0.9, 0.3])) is None
    frames[1, 2, 3, 1] = 3 / 255
    assert problem_with_frames(frames) is None
    frames[1, 2, 3, 1] = np.inf
    assert problem_with_frames(frames) == "The frames hold NaN or infinity"
    assert problem_with_latents(torch.zeros(2, 3)) is None
    assert problem_with_latents(torch.tensor([0.0, -torch.inf])) == "The latents hold NaN or infinity"
