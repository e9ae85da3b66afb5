"""Out of memory: what it says, and what is left behind. The limit of the first test is the system's own."""

import errno
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ripple_core.contract.errors import OutOfMemory
from ripple_core.contract.metrics import Retry
from ripple_core.generate import LoadedModel, generate_frames, generate_video, load_model
from ripple_core.generate.difference import psnr_db
from ripple_core.generate.memory import remember
from ripple_core.generate.no_memory import is_out_of_memory

IN_TILES = Retry(reason="out_of_memory", remedy="vae_tiling")
SCRIPT = Path(__file__).parent / "in_little_memory.py"


@contextmanager
def short_of_memory(module: Any, calls: range) -> Iterator[None]:
    """Within, some calls of a module ask for far more than there is."""
    seen: list[int] = []

    def ask_for_too_much(*_: Any) -> None:
        seen.append(len(seen))
        if seen[-1] in calls:
            torch.empty(2**60, dtype=torch.uint8)

    hook = module.register_forward_hook(ask_for_too_much)
    yield
    hook.remove()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_after_a_video_that_was_too_large_the_next_one_is_as_before() -> None:
    """A process with 120 MB left fails at one size, says so, and goes on at another."""
    done = subprocess.run(
        [sys.executable, SCRIPT, "120000000"], capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["code"], result["same"]) == ("out_of_memory", True)
    assert "Out of memory at 256x256, 65 frames" in result["message"]
    width, height, frames = map(int, re.findall(r"(\d+)x(\d+) with (\d+) frames", result["message"])[0])
    assert width % 16 == height % 16 == 0
    assert 0 < width * height * frames < 256 * 256 * 65


def test_what_the_system_says_counts() -> None:
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**60, np.uint8)
    errors = [of_torch.value, of_numpy.value, torch.OutOfMemoryError("CUDA out of memory."), OSError(errno.ENOMEM, "x")]
    assert all(is_out_of_memory(error) for error in errors)
    assert not any(map(is_out_of_memory, [RuntimeError("shapes"), OSError(errno.ENOSPC, "x"), ValueError("x")]))


def test_advice_follows_from_what_was_measured(model: LoadedModel, ask: Any, tmp_path: Path) -> None:
    """Two videos that took 1 and 3 petabytes: a third would take five, which nothing has."""
    fresh = replace(model, pipe=type(model.pipe)(**model.pipe.components))
    remember(fresh, ask(fresh.spec, width=32, height=32, num_frames=5), 10**15)
    remember(fresh, ask(fresh.spec, width=64, height=32, num_frames=9), 10**15 + 2 * 32 * 32 * 13 * 10**11)
    asked = ask(fresh.spec, width=64, height=64, num_frames=9)
    with short_of_memory(fresh.pipe.transformer, range(1)), pytest.raises(OutOfMemory) as raised:
        generate_video(fresh, asked, tmp_path)
    needed = 10**15 + 2 * 32 * 32 * (36 - 5) * 10**11
    assert f"takes about {needed / 1e9:.2g} GB" in str(raised.value)
    # Of 64x64x9 pixels 64x32x9 have been made.
    assert "Ask for 3 frames at this size, or for 32x32 with 9 frames." in str(raised.value)


@pytest.mark.parametrize("measured", [None, 10**9])
def test_without_measurements_of_any_use_half_is_advised(
    model: LoadedModel, ask: Any, tmp_path: Path, measured: int | None
) -> None:
    fresh = replace(model, pipe=type(model.pipe)(**model.pipe.components))
    if measured is not None:
        remember(fresh, ask(fresh.spec, width=32, height=32, num_frames=5), measured)
    asked = ask(fresh.spec, width=64, height=64, num_frames=17)
    with short_of_memory(fresh.pipe.transformer, range(1)), pytest.raises(OutOfMemory) as raised:
        generate_video(fresh, asked, tmp_path)
    message = "Out of memory at 64x64, 17 frames. Ask for 7 frames at this size, or for 32x32 with 17 frames."
    assert str(raised.value) == message
    assert list(tmp_path.iterdir()) == []


def test_the_vae_has_a_second_try_in_tiles(model: LoadedModel, ask: Any, tmp_path: Path) -> None:
    """The latents are those of the first try; the pipeline is as before."""
    asked = ask(model.spec, width=144, height=128, num_frames=5, num_inference_steps=1)
    whole = generate_frames(model, asked)
    steps: list[int] = []
    with short_of_memory(model.pipe.vae.decoder, range(1, 2)):
        tiled = generate_frames(model, asked, lambda p: steps.append(p.step), retry_tiling=True)
    assert tiled.retries == (IN_TILES,)
    assert steps == sorted(steps), "denoised twice"
    assert not np.array_equal(tiled.frames, whole.frames)
    assert psnr_db(whole.frames, tiled.frames) > 25
    assert np.array_equal(generate_frames(model, asked).frames, whole.frames)
    with short_of_memory(model.pipe.vae.decoder, range(1, 2)):
        assert generate_video(model, asked, tmp_path).retries == [IN_TILES]


@pytest.mark.parametrize(
    ("size", "calls", "retry_tiling"),
    [(128, range(100), True), (128, range(1, 2), False), (64, range(1, 2), True)],
    ids=["tiles-too-large-too", "not-wanted", "too-small-for-tiles"],
)
def test_a_vae_without_memory_fails_and_recovers(
    model: LoadedModel, ask: Any, size: int, calls: range, retry_tiling: bool
) -> None:
    asked = ask(model.spec, width=size, height=size, num_frames=5, num_inference_steps=1)
    before = generate_frames(model, asked)
    with short_of_memory(model.pipe.vae.decoder, calls), pytest.raises(OutOfMemory):
        generate_frames(model, asked, retry_tiling=retry_tiling)
    assert np.array_equal(generate_frames(model, asked).frames, before.frames)
    assert not model.pipe.vae.use_tiling


def test_other_errors_stay_what_they_are(model: LoadedModel, ask: Any) -> None:
    broken = load_model(model.spec)
    broken.pipe.vae.decoder = torch.nn.Linear(2, 3)
    with pytest.raises((RuntimeError, TypeError)) as raised:
        generate_frames(broken, ask(model.spec, num_frames=5, num_inference_steps=1), retry_tiling=True)
    assert not isinstance(raised.value, OutOfMemory)
