"""The first video that nobody sees."""

from pathlib import Path
from typing import Any

from ripple_core.contract.models import find_model
from ripple_core.generate import LoadedModel, generate_frames, load_model
from ripple_core.generate.warm_up import warm_up

SMALL = {"width": 32, "height": 32, "num_frames": 5}


def small(folder: Path) -> LoadedModel:
    """A model whose default video is small."""
    spec = find_model(str(folder))
    return load_model(spec.model_copy(update={"defaults": spec.defaults.model_copy(update=SMALL)}))


def test_it_runs_every_part_and_leaves_no_trace(random_pipeline_folder: Path, ask: Any) -> None:
    model, ran = small(random_pipeline_folder), set()
    for name in ("text_encoder", "transformer"):
        getattr(model.pipe, name).register_forward_hook(lambda *_, name=name: ran.add(name))
    model.pipe.vae.decoder.conv_in.register_forward_hook(lambda *_: ran.add("vae"))
    before = generate_frames(model, ask(model.spec)).frames
    ran.clear()
    assert warm_up(model) > 0
    assert ran == {"text_encoder", "transformer", "vae"}
    assert (generate_frames(model, ask(model.spec)).frames == before).all()


def test_models_that_begin_from_an_image_get_one(image_pipeline_folder: Path) -> None:
    warm_up(small(image_pipeline_folder))
