"""The probe against what the adapters claim, and on a class that has none."""

from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel

from ripple_core import TimeRippleConfig, apply_timeripple
from ripple_core.attention import LatentGrid
from ripple_core.integrate.families import FAMILIES, family_of
from ripple_core.integrate.probe import NO_AXIS, SEVERAL_AXES, TokenLayout, probe

GRID = LatentGrid(3, 4, 5)


def check_against_family(layout: TokenLayout, family: Any) -> None:
    assert layout.order == "tyx"
    found = layout.family()
    # Keyframes may follow LTX-2's video, and do not here.
    text = "none" if family is FAMILIES["LTX2VideoTransformer3DModel"] else family.text
    assert (found.text, found.kernel) == (text, family.kernel)
    axes = set(layout.axis_of_channel.flatten().tolist()) - {NO_AXIS}
    assert axes in ({0, 1, 2}, {SEVERAL_AXES})


def test_every_pipelines_adapter_is_what_the_probe_finds(tiny: Any) -> None:
    transformer = tiny.pipe.transformer
    family = family_of(transformer)
    if getattr(transformer.config, "use_rotary_positional_embeddings", None) is False:
        with pytest.raises(ValueError, match="without RoPE the probe sees nothing"):
            probe(transformer, family.layers, LatentGrid(*tiny.grid), tiny)
        return
    check_against_family(probe(transformer, family.layers, LatentGrid(*tiny.grid), tiny), family)


def test_every_transformers_adapter_is_what_the_probe_finds(tiny_transformer: Any) -> None:
    family = family_of(tiny_transformer.transformer)
    layout = probe(tiny_transformer.transformer, family.layers, GRID, tiny_transformer)
    check_against_family(layout, family)


class UnknownTransformer(WanTransformer3DModel):
    """A class that no adapter names."""


@pytest.fixture
def unknown(random_pipeline: Any) -> Any:
    random_pipeline.transformer.__class__ = UnknownTransformer
    return random_pipeline.transformer


def forward(transformer: Any) -> torch.Tensor:
    latents = torch.randn(1, 8, 3, 8, 10, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return transformer(latents, torch.tensor([500.0]), torch.ones(1, 7, 64), return_dict=False)[0]


def test_an_unknown_class_can_be_probed_and_used(unknown: Any) -> None:
    with pytest.raises(ValueError, match=r"UnknownTransformer is not supported.*probe"):
        apply_timeripple(unknown)
    stock = forward(unknown)
    layout = probe(unknown, (("blocks", "attn1"),), GRID, lambda: forward(unknown))
    # 12 channels a head: 4 each for t, y and x.
    assert layout.axis_of_channel.tolist() == [[0] * 4 + [1] * 4 + [2] * 4] * 2
    assert torch.equal(forward(unknown), stock)
    handle = apply_timeripple(unknown, TimeRippleConfig(1.0, "channel"), family=layout.family())
    handle.set_step(2, 5)
    assert not torch.equal(forward(unknown), stock)
    assert handle.report().fallbacks == {}
    assert handle.report().savings > 0


def test_another_order_of_tokens_is_found_and_refused(random_pipeline: Any) -> None:
    """With width before height in the input, tokens lie in order t, x, y."""
    transformer = random_pipeline.transformer
    layout = probe(transformer, (("blocks", "attn1"),), LatentGrid(3, 5, 4), lambda: forward(transformer))
    assert layout.order == "txy"
    with pytest.raises(ValueError, match="order tyx"):
        layout.family()


def test_an_ambiguous_grid_is_refused(random_pipeline: Any) -> None:
    with pytest.raises(ValueError, match="must differ"):
        probe(random_pipeline.transformer, (("blocks", "attn1"),), LatentGrid(4, 4, 5), lambda: None)
