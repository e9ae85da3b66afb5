"""The training command, a few steps of it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from ripple_core.contract.models import find_model
from ripple_core.generate import load_model
from ripple_core.tiny import architecture, train
from ripple_core.tiny.clips import random_scene, render
from ripple_core.tiny.linear_start import LinearCodec


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Batches of one clip, a checkpoint each step."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_DECODER_BATCH", "_CHECKPOINT_EVERY"):
            patch.setattr(train, name, 1)
        patch.setattr(train, "STAGES", tuple(replace(stage, batch=1) for stage in train.STAGES))
        yield


def run(folder: Path) -> None:
    train.main(folder / "model", folder / "work", seed=3, steps=(1, 1, 1, 1), decoder_steps=1)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "work" / "transformer.pt", weights_only=True)["transformer"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run(folder)
    return folder


def test_it_writes_a_pipeline_that_loads_and_a_card(finished: Path) -> None:
    spec = find_model(str(finished / "model"))
    assert spec.defaults.num_frames >= 17
    assert min(spec.defaults.width, spec.defaults.height) >= 96
    assert load_model(spec).pipe.transformer.config.num_layers == 6
    card = (finished / "model" / "README.md").read_text()
    assert "--seed 3 --steps 1 1 1 1 --decoder-steps 1" in card


def test_a_finished_model_can_be_trained_on(finished: Path, tmp_path: Path) -> None:
    train.main(
        tmp_path / "on", tmp_path / "more", seed=4, steps=(0, 0, 0, 1), decoder_steps=0, start_from=finished / "model"
    )
    before, after = (load_model(find_model(str(folder))).pipe for folder in (finished / "model", tmp_path / "on"))
    assert all(torch.equal(a, b) for a, b in zip(before.vae.parameters(), after.vae.parameters(), strict=True))
    change = [
        (a - b).abs().max().item()
        for a, b in zip(before.transformer.parameters(), after.transformer.parameters(), strict=True)
    ]
    # The first step of the warm-up.
    assert 0 < max(change) < 1e-3
    card = (tmp_path / "on" / "README.md").read_text()
    assert "--seed 4 --steps 0 0 0 1 --decoder-steps 0 --start-from" in card
    assert "Before that, by `python -m ripple_core.tiny.train --seed 3 --steps 1 1 1 1" in card


def test_a_stopped_run_goes_on_to_the_same_weights(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights_of(finished)

    class Stop(Exception):
        pass

    log = train._log

    def stop_after_two(work: Path, **record: object) -> None:
        log(work, **record)
        if record["step"] == 2:
            raise Stop

    monkeypatch.setattr(train, "_log", stop_after_two)
    with pytest.raises(Stop):
        run(tmp_path / "halves")
    monkeypatch.setattr(train, "_log", log)
    run(tmp_path / "halves")
    halves = weights_of(tmp_path / "halves")
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


def test_a_work_folder_of_another_run_is_refused(finished: Path) -> None:
    with pytest.raises(typer.BadParameter, match="another run"):
        train.main(finished / "model", finished / "work", seed=4, steps=(1, 1, 1, 1), decoder_steps=1)


def test_bfloat16_changes_the_weights_only_a_little(tmp_path: Path) -> None:
    weights = []
    for bfloat16 in (False, True):
        folder = tmp_path / str(bfloat16)
        train.main(folder / "model", folder / "work", seed=3, steps=(0, 0, 1, 0), decoder_steps=0, bfloat16=bfloat16)
        weights.append(torch.cat([value.flatten() for value in weights_of(folder).values()]))
    assert 0 < (weights[0] - weights[1]).norm() < 1e-2 * weights[0].norm()
    assert "--bfloat16" in (tmp_path / "True" / "model" / "README.md").read_text()


def test_thinned_tokens_are_tokens_of_the_whole_grid_at_their_places() -> None:
    rope = architecture.build_transformer().rope
    frames = np.arange(3 * 32 * 48 * 3).reshape(3, 32, 48, 3)
    latents = torch.empty(1, 8, 2, 8, 12)
    whole = [part.unflatten(1, (2, 4, 6)) for part in rope(latents)]
    for offset in ((0, 0), (1, 0), (0, 1), (1, 1)):
        y, x = offset
        thinned = train.thin(frames, 2, offset)
        assert thinned.shape == (3, 16, 24, 3)
        for row, column in ((0, 0), (1, 2)):
            top, left = 8 * (y + 2 * row), 8 * (x + 2 * column)
            square = thinned[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            assert np.array_equal(square, frames[:, top : top + 8, left : left + 8])
        thinned_rope = train.ThinnedRope(rope, (1, 2, 2), (0, *offset))(latents[..., :4, :6])
        for part, all_places in zip(thinned_rope, whole, strict=True):
            assert torch.equal(part.unflatten(1, (2, 2, 3)), all_places[:, :, y::2, x::2])


def test_thinned_frames_are_at_their_places() -> None:
    rope = architecture.build_transformer().rope
    whole = [part.unflatten(1, (9, 4, 6)) for part in rope(torch.empty(1, 8, 9, 8, 12))]
    for offset in range(3):
        thinned_rope = train.ThinnedRope(rope, (3, 1, 1), (offset, 0, 0))(torch.empty(1, 8, 3, 8, 12))
        for part, all_places in zip(thinned_rope, whole, strict=True):
            assert torch.equal(part.unflatten(1, (3, 4, 6)), all_places[:, offset::3])


def test_the_loss_falls_where_it_must() -> None:
    """On one batch, whose noise it can learn by heart."""
    torch.manual_seed(0)
    transformer: WanTransformer3DModel = architecture.build_transformer()
    text_encoder = architecture.build_text_encoder(len(architecture.build_tokenizer()))
    denoiser = train.Denoiser(transformer, text_encoder)
    optimisers = train._optimisers([transformer, text_encoder])
    clean = torch.randn(2, 8, 3, 8, 8)
    losses = []
    for _ in range(20):
        loss = denoiser.loss(clean, ["a red circle", ""], train.STAGES[1], (0, 0, 1), torch.Generator().manual_seed(0))
        train._optimise(optimisers, loss, 1.0)
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_the_linear_start_is_a_codec() -> None:
    vae: AutoencoderKLWan
    codec: LinearCodec
    vae, codec = train.start_vae()
    rng = np.random.default_rng(9)
    pixels = train._to_tensor([render(random_scene(rng), rng) for _ in range(2)])
    with torch.no_grad():
        latents = codec.encode(pixels)
        rebuilt = vae.decode(latents).sample
        own = vae.encode(pixels).latent_dist.mode()
    psnr_db = -10 * torch.log10((rebuilt - pixels).square().mean() / 4)
    assert psnr_db > 25
    # The VAE's own encoder agrees to first order: flat parts exactly, edges roughly.
    assert (latents - own).abs().median() < 0.02
    assert torch.corrcoef(torch.stack([latents.flatten(), own.flatten()]))[0, 1] > 0.99
