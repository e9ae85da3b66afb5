"""One model on two ranks, over gloo, with the real processes."""

import copy
import gc
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from diffusers import WanPipeline
from fleet import is_gone, until
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image

from ripple_core.contract.errors import GenerationCancelled, ModelLoadFailed, OutOfMemory, WorkerLost
from ripple_core.contract.job import Progress
from ripple_core.contract.model_config import LoadOptions
from ripple_core.contract.models import find_model
from ripple_core.contract.request import LoraSettings
from ripple_core.generate import GeneratedFrames, LoadedModel, generate_frames, generate_video, load_model

ON_TWO = LoadOptions(context_parallel=2)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Three processes share the cores; ranks read the environment."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def together(random_pipeline_folder: Path) -> Iterator[LoadedModel]:
    """The model of `model`, which runs alone, on two ranks; it has two heads."""
    spec = find_model(str(random_pipeline_folder)).model_copy(update={"max_work": 256 * 256 * 65})
    model = load_model(spec, options=ON_TWO)
    yield model
    assert model.ranks is not None
    model.ranks.close()


def ranks(model: LoadedModel) -> list[int]:
    assert model.ranks is not None
    return model.ranks.pids


def same(one: GeneratedFrames, other: GeneratedFrames) -> None:
    """The same video, of the same work.

    Ranks multiply matrices of other shapes, so that numbers may differ in their last bits; and each rank rounds the
    FLOPs of each step and layer.
    """
    assert np.abs(one.frames.astype(int) - other.frames).max() <= 1
    mine, theirs = one.report, other.report
    assert mine.total.dense_flops == theirs.total.dense_flops
    assert mine.total.executed_flops == pytest.approx(theirs.total.executed_flops, abs=len(mine.by_step) * 4)
    assert mine.by_step.keys() == theirs.by_step.keys()
    assert [len(heads) for heads in mine.by_layer_and_head.values()] == [
        len(heads) for heads in theirs.by_layer_and_head.values()
    ]
    for name in ("calls", "tokens", "dense_steps", "fallbacks", "dense_heads", "backend", "mode"):
        assert getattr(mine, name) == getattr(theirs, name), name


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
@pytest.mark.parametrize(("mode", "aggressiveness"), [("channel", 1.0), ("ripple", 1.0), ("dense", 0.0)])
def test_two_ranks_give_the_frames_and_the_flops_of_one(
    model: LoadedModel, together: LoadedModel, ask: Any, mode: str, aggressiveness: float, guidance_scale: float
) -> None:
    reuse = {"mode": mode, "aggressiveness": aggressiveness}
    request = ask(model.spec, reuse=reuse, guidance_scale=guidance_scale)
    same(generate_frames(together, request), generate_frames(model, request))


def test_loras_are_on_all_ranks_for_their_video(
    model: LoadedModel, together: LoadedModel, ask: Any, tmp_path: Path
) -> None:
    adapted = copy.deepcopy(model.pipe.transformer)
    torch.manual_seed(3)
    adapted.add_adapter(LoraConfig(r=2, lora_alpha=40, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = get_peft_model_state_dict(adapted)
    WanPipeline.save_lora_weights(tmp_path, transformer_lora_layers=layers, weight_name="style.safetensors")
    plain, loras = ask(model.spec), [LoraSettings(name="style", scale=1.0)]
    without = generate_frames(model, plain)
    with model.with_loras(loras, tmp_path):
        alone = generate_frames(model, plain)
    assert np.abs(alone.frames.astype(int) - without.frames).max() > 1
    with together.with_loras(loras, tmp_path):
        same(generate_frames(together, plain), alone)
        # New ranks get them, too.
        rank = psutil.Process(ranks(together)[0])
        rank.kill()
        until(lambda: is_gone(rank) and not torch.distributed.is_initialized(), "its end is noticed")
        same(generate_frames(together, plain), alone)
    same(generate_frames(together, plain), without)


def test_a_cancelled_video_stops_all_ranks_and_the_next_one_has_them(
    model: LoadedModel, together: LoadedModel, ask: Any
) -> None:
    request, steps, before = ask(model.spec), list[int](), ranks(together)
    with pytest.raises(GenerationCancelled):
        generate_frames(together, request, lambda p: steps.append(p.step), should_stop=lambda: steps[-1] >= 2)
    assert max(steps) == 2
    same(generate_frames(together, request), generate_frames(model, request))
    assert ranks(together) == before


def test_a_killed_rank_ends_the_video_with_an_error_and_the_next_one_has_new_ranks(
    model: LoadedModel, together: LoadedModel, ask: Any
) -> None:
    request, killed = ask(model.spec), ranks(together)

    def kill_at_step(progress: Progress) -> None:
        if progress.step == 3:
            psutil.Process(killed[0]).kill()

    with pytest.raises(WorkerLost, match="rank 1 ended with exit code -9"):
        generate_frames(together, request, kill_at_step)
    assert ranks(together) == []
    same(generate_frames(together, request), generate_frames(model, request))
    assert ranks(together) not in ([], killed)


def test_a_rank_without_memory_is_out_of_memory(
    model: LoadedModel, together: LoadedModel, ask: Any, tmp_path: Path
) -> None:
    generate_frames(together, ask(model.spec))
    process = psutil.Process(ranks(together)[0])
    process.rlimit(resource.RLIMIT_AS, (process.memory_info().vms + 2**20, resource.RLIM_INFINITY))
    large = ask(together.spec, width=256, height=256, num_frames=65, num_inference_steps=1)
    with pytest.raises(OutOfMemory):
        generate_video(together, large, tmp_path)
    same(generate_frames(together, ask(model.spec)), generate_frames(model, ask(model.spec)))


def test_metrics_tell_of_all_devices(together: LoadedModel, ask: Any, tmp_path: Path) -> None:
    metrics = generate_video(together, ask(together.spec), tmp_path)
    assert metrics.device.name.startswith("2 x cpu")


def test_models_on_several_devices_take_turns(together: LoadedModel, ask: Any) -> None:
    request = ask(together.spec)
    expected = generate_frames(together, request)
    first, second = ranks(together), load_model(together.spec, options=ON_TWO)
    assert not any(psutil.pid_exists(pid) for pid in first)
    same(generate_frames(second, request), expected)
    same(generate_frames(together, request), expected)
    assert ranks(second) == []


def test_tokens_need_not_be_shared_out_evenly(ask: Any) -> None:
    """7 x 8 x 8 on three ranks, on weights that were trained."""
    spec = find_model("builtin")
    size = {"width": 64, "height": 64, "num_frames": 13}
    request = ask(spec, reuse={"aggressiveness": 1.0, "mode": "ripple"}, **size)
    alone = generate_frames(load_model(spec), request)
    assert alone.report.savings > 0.3
    together = load_model(spec, options=LoadOptions(context_parallel=3))
    same(generate_frames(together, request), alone)
    assert together.ranks is not None
    together.ranks.close()


def test_every_kind_of_wan_runs_on_two_ranks(image_pipeline_folder: Path, ask: Any) -> None:
    """Two transformers, a timestep for each token, an image's tokens."""
    spec = find_model(str(image_pipeline_folder))
    request = ask(spec, image_sha256="0" * 64)
    together = load_model(spec, options=ON_TWO)
    image = Image.effect_noise((request.width, request.height), 100).convert("RGB")
    same(
        generate_frames(together, request, first_frame=image),
        generate_frames(load_model(spec), request, first_frame=image),
    )
    assert together.ranks is not None
    together.ranks.close()


def test_a_model_that_is_let_go_takes_its_ranks_along(random_pipeline_folder: Path, ask: Any) -> None:
    model = load_model(find_model(str(random_pipeline_folder)), options=ON_TWO)
    generate_frames(model, ask(model.spec))
    pids = ranks(model)
    del model
    gc.collect()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_heads_that_cannot_be_shared_out_are_refused(random_pipeline_folder: Path) -> None:
    with pytest.raises(ModelLoadFailed, match=r"its 2 attention heads .* context_parallel may be one of: 1, 2\."):
        load_model(find_model(str(random_pipeline_folder)), options=LoadOptions(context_parallel=3))


KILLED = """
import os, signal, sys
from ripple_core.contract.model_config import LoadOptions
from ripple_core.contract.models import find_model
from ripple_core.generate import load_model

model = load_model(find_model(sys.argv[1]), options=LoadOptions(context_parallel=2))
print(*model.ranks.pids, flush=True)
signal.pause()
"""


def test_ranks_die_with_the_process_they_work_for(random_pipeline_folder: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(random_pipeline_folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    [rank] = (psutil.Process(int(pid)) for pid in process.stdout.readline().split())
    process.kill()
    process.wait()
    until(lambda: is_gone(rank), "the rank is gone")


def test_previews_are_those_of_one_rank(together: LoadedModel, model: LoadedModel, ask: Any) -> None:
    """The first rank decodes them while the other one waits for its next forward call."""
    asked = ask(model.spec, preview=True)
    shown: list[int] = []
    watched = generate_frames(together, asked, on_preview=lambda step, _: shown.append(step))
    assert shown == [2, 3, 4]
    same(watched, generate_frames(model, asked))
