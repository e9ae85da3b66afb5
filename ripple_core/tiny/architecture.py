"""Builds the untrained parts of the built-in model; all of them are stock diffusers and transformers classes."""

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from ripple_core.tiny.clips import BACKGROUNDS, COLOURS, MOTION_PHRASES, SHAPES

Z_DIM = 8
_SPECIAL = ("<pad>", "</s>", "<unk>")
_FILLERS = "a an shape above on background"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word of the captions, lower-cased; any other word becomes <unk>."""
    motions = " ".join(phrase for phrases in MOTION_PHRASES.values() for phrase in phrases)
    words = [*f"{_FILLERS} {motions}".split(), *COLOURS, *SHAPES, *BACKGROUNDS]
    vocab = {word: index for index, word in enumerate([*_SPECIAL, *dict.fromkeys(words)])}
    tokenizer = Tokenizer(WordLevel(vocab, unk_token="<unk>"))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", vocab["</s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="right"
    )


def build_text_encoder(vocab_size: int) -> UMT5EncoderModel:
    """A two-layer UMT5 encoder of width 64."""
    return UMT5EncoderModel(
        UMT5Config(vocab_size=vocab_size, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, dropout_rate=0.0)
    )


def build_vae() -> AutoencoderKLWan:
    """A Wan VAE with 4x4 pixels and two frames per latent, working on 2x2 pixel patches as Wan 2.2's does."""
    return AutoencoderKLWan(
        base_dim=24,
        z_dim=Z_DIM,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[True],
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_temporal=2,
        scale_factor_spatial=4,
        latents_mean=[0.0] * Z_DIM,
        latents_std=[1.0] * Z_DIM,
    )


def build_transformer() -> WanTransformer3DModel:
    """A Wan transformer of width 192: 6 layers, 3 heads of 64 channels (24 for t, 20 each for y and x)."""
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=3,
        attention_head_dim=64,
        in_channels=Z_DIM,
        out_channels=Z_DIM,
        text_dim=64,
        freq_dim=128,
        ffn_dim=640,
        num_layers=6,
        rope_max_seq_len=256,
    )
    with torch.no_grad():
        for block in transformer.blocks:
            # The gates on attention and feed-forward, which diffusers leaves nearly shut.
            block.scale_shift_table[:, [2, 5]] += 1
    return transformer


def build_pipeline(
    transformer: WanTransformer3DModel,
    vae: AutoencoderKLWan,
    text_encoder: UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
) -> WanPipeline:
    """The stock pipeline around the given parts, with Wan's flow-matching Euler scheduler (shift 3)."""
    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder.to(torch.float32),
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=transformer,
    )
