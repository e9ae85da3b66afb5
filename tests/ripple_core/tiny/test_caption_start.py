"""An untrained transformer hears its caption through the padding, and goes on hearing it."""

from collections.abc import Callable

import pytest
import torch
from diffusers import WanTransformer3DModel

from ripple_core.tiny import architecture, train
from ripple_core.tiny.caption_start import start_with_captions, start_with_word_order

CAPTIONS = ("a red circle moving left on a dark background", "a red circle moving right on a dark background")


@pytest.fixture
def hear() -> Callable[[bool], tuple[WanTransformer3DModel, torch.Tensor, torch.Tensor]]:
    def build(with_start: bool) -> tuple[WanTransformer3DModel, torch.Tensor, torch.Tensor]:
        """A fresh transformer, a token's content after its first block, and how much of it one word changes."""
        torch.manual_seed(0)
        tokenizer = architecture.build_tokenizer()
        transformer, text_encoder = architecture.build_transformer(), architecture.build_text_encoder(len(tokenizer))
        if with_start:
            start_with_captions(transformer, text_encoder, train._typical_words(text_encoder, tokenizer, 0))
        seen: list[torch.Tensor] = []
        transformer.blocks[0].register_forward_hook(lambda _, __, output: seen.append(output))
        with torch.no_grad():
            text = train._encode_text(text_encoder, tokenizer, list(CAPTIONS))
            padding = torch.zeros(2, 512 - text.shape[1], 64)
            noise = torch.randn(1, 8, 3, 8, 8).expand(2, -1, -1, -1, -1)
            transformer(noise, torch.full((2,), 999.0), torch.cat([text, padding], 1))
        left, right = seen[0]
        return transformer, left.square().mean().sqrt(), (left - right).square().mean().sqrt()

    return build


def test_one_word_among_512_changes_every_token(
    hear: Callable[[bool], tuple[WanTransformer3DModel, torch.Tensor, torch.Tensor]],
) -> None:
    _, content, change = hear(False)
    assert change < 0.01 * content
    _, content, change = hear(True)
    assert change > 0.2 * content


def test_padding_has_no_key_and_cannot_get_one(
    hear: Callable[[bool], tuple[WanTransformer3DModel, torch.Tensor, torch.Tensor]],
) -> None:
    transformer, _, _ = hear(True)
    embedder = transformer.condition_embedder.text_embedder
    assert not any(parameter.requires_grad for parameter in embedder.parameters())
    padding = embedder(torch.zeros(1, 64))
    for block in transformer.blocks:
        assert torch.equal(block.attn2.to_k(padding), torch.zeros(1, 192))
        assert not block.attn2.to_k.bias.requires_grad


def test_swapped_objects_are_told_apart() -> None:
    """By the mean of words alone, which without the start hardly differs."""
    captions = [
        f"a {one} circle growing above a {other} circle growing" for one, other in (("red", "blue"), ("blue", "red"))
    ]
    tokenizer = architecture.build_tokenizer()
    differences = []
    for start in (lambda _: None, start_with_word_order):
        torch.manual_seed(0)
        text_encoder = architecture.build_text_encoder(len(tokenizer))
        start(text_encoder)
        with torch.no_grad():
            one, other = train._encode_text(text_encoder, tokenizer, captions).mean(1)
        differences.append(((one - other).norm() / one.norm()).item())
    assert differences[0] < 0.02
    assert differences[1] > 0.1
