"""The built-in model shows what the prompt says, judged on the pixels."""

import itertools

import numpy as np
import pytest

from ripple_core.contract.models import BUILTIN_MODEL_FOLDER, find_model
from ripple_core.contract.request import GenerateRequest, ReuseSettings
from ripple_core.contract.validate import resolve
from ripple_core.generate import LoadedModel, generate_frames, load_model
from ripple_core.tiny.judge import judge

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
BACKGROUNDS = ("dark", "grey", "light")
SEED = 20_261_121
CLIPS = 10


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(find_model("builtin"))


def test_colours_are_right(model: LoadedModel) -> None:
    """At least 9 of 10 prompts that the shipped model knows; the judge knows its successor's backgrounds."""
    rng = np.random.default_rng(SEED)
    known = list(itertools.product(COLOURS, BACKGROUNDS))
    right = 0
    for index, chosen in enumerate(rng.permutation(len(known))[:CLIPS]):
        colour, background = known[chosen]
        prompt = f"a {colour} circle moving left on a {background} background"
        request = GenerateRequest(prompt=prompt, seed=SEED + index, reuse=ReuseSettings(mode="dense"))
        verdict = judge(generate_frames(model, resolve(request, model.spec)).frames)
        right += [thing.colour for thing in verdict.things] == [colour]
    assert right >= 9


def test_the_folder_is_a_complete_pipeline_under_its_size_limit() -> None:
    names = {path.name for path in BUILTIN_MODEL_FOLDER.iterdir()}
    assert names >= {"model_index.json", "transformer", "vae", "text_encoder", "tokenizer", "scheduler", "README.md"}
    size = sum(path.stat().st_size for path in BUILTIN_MODEL_FOLDER.rglob("*") if path.is_file())
    assert size < 24e6
