"""Tiny pipelines with random weights, one for each supported family whose parts can be made without a model hub.

Prompts come as embeddings, which every pipeline takes: no text encoder is needed, and batch items can have different
numbers of valid tokens. Sizes are odd where the model allows it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

STEPS = 5
TEXT = 16  # tokens of a prompt, padding included
TEXT_DIM = 32


@dataclass
class TinyPipeline:
    """A pipeline and how to run it.

    Attributes:
        pipe: without text encoders.
        size: height, width and num_frames arguments.
        grid: frames, height and width in video tokens.
        prompt: embeddings of a batch of prompts, as arguments; a guided call has negative ones too.
        layers: self-attention modules.
        decodes: whether its VAE works at this size.
        options: further arguments.
    """

    pipe: Any
    size: tuple[int, int, int]
    grid: tuple[int, int, int]
    prompt: Callable[[int], dict[str, Any]]
    layers: int = 2
    decodes: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, batch: int = 1, output_type: str = "latent", **options: Any) -> Tensor:
        """The latents, or the video, of fixed noise."""
        height, width, num_frames = self.size
        self.pipe.set_progress_bar_config(disable=True)
        torch.manual_seed(5)
        arguments = {
            "height": height,
            "width": width,
            "num_frames": num_frames,
            "num_inference_steps": STEPS,
            "output_type": output_type,
            "generator": torch.Generator().manual_seed(7),
        }
        video = self.pipe(**(arguments | self.prompt(batch) | self.options | options)).frames
        return torch.as_tensor(video)


def embeddings(batch: int, dim: int = TEXT_DIM, seed: int = 1, tokens: int = TEXT) -> Tensor:
    """``[batch, tokens, dim]``."""
    return torch.randn(batch, tokens, dim, generator=torch.Generator().manual_seed(seed))


def mask(batch: int, dtype: torch.dtype = torch.int64, first: int = 9) -> Tensor:
    """``[batch, TEXT]``; every item has other valid tokens."""
    return (torch.arange(TEXT)[None] < first + 3 * torch.arange(batch)[:, None]).to(dtype)


def plain_prompt(batch: int) -> dict[str, Any]:
    return {"prompt_embeds": embeddings(batch), "negative_prompt_embeds": embeddings(batch, seed=2)}


def masked_prompt(batch: int) -> dict[str, Any]:
    masks = {"prompt_attention_mask": mask(batch), "negative_prompt_attention_mask": mask(batch, first=5)}
    return plain_prompt(batch) | masks


def flow_scheduler(**options: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**options)


def wan_transformer(**changes: Any) -> Any:
    from diffusers import WanTransformer3DModel

    config = {
        "patch_size": (1, 2, 2),
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 8,
        "out_channels": 8,
        "text_dim": TEXT_DIM,
        "freq_dim": 16,
        "ffn_dim": 32,
        "num_layers": 2,
        "rope_max_seq_len": 64,
    }
    return WanTransformer3DModel(**(config | changes)).eval()


def wan_vae() -> Any:
    from diffusers import AutoencoderKLWan

    from ripple_core.tiny import architecture

    return AutoencoderKLWan.from_config(dict(architecture.build_vae().config) | {"base_dim": 8}).eval()


def wan(num_layers: int = 2, **parts: Any) -> TinyPipeline:
    from diffusers import WanPipeline

    defaults = {"transformer": wan_transformer(num_layers=num_layers), "scheduler": flow_scheduler(shift=3.0)}
    pipe = WanPipeline(tokenizer=None, text_encoder=None, vae=wan_vae(), **(defaults | parts))
    layers = num_layers if parts.get("transformer_2") is None else 2 * num_layers
    return TinyPipeline(pipe, (32, 48, 5), (3, 4, 6), plain_prompt, layers)


def wan_image_to_video() -> TinyPipeline:
    from diffusers import WanImageToVideoPipeline

    # Noise, the first frame's latents, and a mask over the two frames of a latent.
    transformer = wan_transformer(in_channels=8 + 8 + 2)
    pipe = WanImageToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        image_encoder=None,
        image_processor=None,
        transformer=transformer,
        vae=wan_vae(),
        scheduler=flow_scheduler(shift=3.0),
    )
    image = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(6))
    return TinyPipeline(pipe, (32, 48, 5), (3, 4, 6), plain_prompt, options={"image": image})


def wan22_two_transformers() -> TinyPipeline:
    from diffusers import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return wan(transformer_2=wan_transformer(), boundary_ratio=0.8, scheduler=scheduler)


def skyreels_v2() -> TinyPipeline:
    from diffusers import SkyReelsV2Pipeline, SkyReelsV2Transformer3DModel, UniPCMultistepScheduler

    config = {name: value for name, value in wan_transformer().config.items() if not name.startswith("_")}
    config.pop("norm_elementwise_affine", None)
    pipe = SkyReelsV2Pipeline(
        tokenizer=None,
        text_encoder=None,
        transformer=SkyReelsV2Transformer3DModel(**config).eval(),
        vae=wan_vae(),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0),
    )
    return TinyPipeline(pipe, (32, 48, 5), (3, 8, 12), plain_prompt)


def hunyuan_vae() -> Any:
    from diffusers import AutoencoderKLHunyuanVideo

    return AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    ).eval()


def hunyuan_video() -> TinyPipeline:
    from diffusers import HunyuanVideoPipeline, HunyuanVideoTransformer3DModel

    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=TEXT_DIM,
        pooled_projection_dim=8,
        rope_axes_dim=(4, 6, 6),
    )

    def prompt(batch: int) -> dict[str, Any]:
        pooled = {"pooled_prompt_embeds": embeddings(batch, 8)[:, 0]}
        pooled["negative_pooled_prompt_embeds"] = embeddings(batch, 8, seed=3)[:, 0]
        return masked_prompt(batch) | pooled

    parts = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipe = HunyuanVideoPipeline(
        transformer=transformer.eval(), vae=hunyuan_vae(), scheduler=flow_scheduler(shift=7.0), **parts
    )
    return TinyPipeline(pipe, (64, 80, 9), (3, 4, 5), prompt, options={"true_cfg_scale": 3.0})


def hunyuan_video15() -> TinyPipeline:
    from diffusers import AutoencoderKLHunyuanVideo15, HunyuanVideo15Pipeline, HunyuanVideo15Transformer3DModel
    from diffusers.guiders import ClassifierFreeGuidance

    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        num_refiner_layers=1,
        text_embed_dim=TEXT_DIM,
        text_embed_2_dim=12,
        image_embed_dim=10,
        rope_axes_dim=(4, 6, 6),
        task_type="t2v",
    )
    vae = AutoencoderKLHunyuanVideo15(latent_channels=4, block_out_channels=(16, 16, 16, 16, 16), layers_per_block=1)

    def prompt(batch: int) -> dict[str, Any]:
        arguments = {}
        for seed, prefix in ((1, ""), (2, "negative_")):
            arguments[f"{prefix}prompt_embeds"] = embeddings(batch, seed=seed)
            arguments[f"{prefix}prompt_embeds_mask"] = mask(batch, first=4 + seed)
            arguments[f"{prefix}prompt_embeds_2"] = embeddings(batch, 12, seed=seed)
            arguments[f"{prefix}prompt_embeds_mask_2"] = mask(batch, first=2 + seed)
        return arguments

    parts = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipe = HunyuanVideo15Pipeline(
        transformer=transformer.eval(),
        vae=vae.eval(),
        scheduler=flow_scheduler(shift=5.0),
        guider=ClassifierFreeGuidance(3.0),
        **parts,
    )
    # Tokens that an image would have.
    pipe.vision_num_semantic_tokens = 6
    return TinyPipeline(pipe, (64, 80, 9), (3, 4, 5), prompt)


def cogvideox(*, rope: bool) -> TinyPipeline:
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
    )

    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=TEXT_DIM,
        num_layers=2,
        sample_width=10,
        sample_height=8,
        sample_frames=9,
        max_text_seq_length=TEXT,
        use_rotary_positional_embeddings=rope,
    )
    vae = AutoencoderKLCogVideoX(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )
    pipe = CogVideoXPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=vae.eval(),
        transformer=transformer.eval(),
        scheduler=CogVideoXDDIMScheduler(),
    )
    return TinyPipeline(pipe, (64, 80, 9), (3, 4, 5), plain_prompt, options={"max_sequence_length": TEXT})


def ltx_video() -> TinyPipeline:
    from diffusers import AutoencoderKLLTXVideo, LTXPipeline, LTXVideoTransformer3DModel

    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=TEXT_DIM,
    )
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    )
    pipe = LTXPipeline(
        scheduler=flow_scheduler(use_dynamic_shifting=True),
        vae=vae.eval(),
        text_encoder=None,
        tokenizer=None,
        transformer=transformer.eval(),
    )
    return TinyPipeline(pipe, (128, 160, 17), (3, 4, 5), masked_prompt)


def ltx2_transformer(rope_type: str, audio_in_channels: int = 4) -> Any:
    from diffusers import LTX2VideoTransformer3DModel

    transformer = LTX2VideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        audio_in_channels=audio_in_channels,
        audio_out_channels=audio_in_channels,
        audio_num_attention_heads=2,
        audio_attention_head_dim=8,
        audio_cross_attention_dim=16,
        num_layers=2,
        caption_channels=TEXT_DIM,
        rope_type=rope_type,
        rope_double_precision=False,
    )
    return transformer.eval()


def ltx2_pipeline() -> TinyPipeline:
    from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video, LTX2Pipeline
    from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder

    connectors = LTX2TextConnectors(
        caption_channels=TEXT_DIM,
        text_proj_in_factor=2,
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=16,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=None,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=16,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=None,
    )
    vae = AutoencoderKLLTX2Video(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )
    audio_vae = AutoencoderKLLTX2Audio(base_channels=8, latent_channels=2, num_res_blocks=1, mel_bins=16)
    vocoder = LTX2Vocoder(in_channels=32, hidden_channels=32)
    pipe = LTX2Pipeline(
        scheduler=flow_scheduler(use_dynamic_shifting=True),
        vae=vae.eval(),
        audio_vae=audio_vae.eval(),
        text_encoder=None,
        tokenizer=None,
        connectors=connectors.eval(),
        transformer=ltx2_transformer("split", audio_in_channels=8),
        vocoder=vocoder.eval(),
    )

    def prompt(batch: int) -> dict[str, Any]:
        audio = torch.randn(batch, 2, 18, 4, generator=torch.Generator().manual_seed(8))
        arguments = masked_prompt(batch) | {"audio_latents": audio}
        for seed, prefix in ((1, ""), (2, "negative_")):
            arguments[f"{prefix}prompt_embeds"] = embeddings(batch, 2 * TEXT_DIM, seed=seed)
        return arguments

    # Guidance takes three passes by default, the last two unguided.
    return TinyPipeline(pipe, (128, 160, 17), (3, 4, 5), prompt)


def mochi() -> TinyPipeline:
    from diffusers import AutoencoderKLMochi, MochiPipeline, MochiTransformer3DModel

    transformer = MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        text_embed_dim=TEXT_DIM,
        time_embed_dim=4,
        max_sequence_length=TEXT,
    )
    # Zero at the start: no position embedding at all.
    torch.nn.init.normal_(transformer.pos_frequencies, std=0.5)
    vae = AutoencoderKLMochi(
        latent_channels=12,
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    )
    pipe = MochiPipeline(
        scheduler=flow_scheduler(),
        vae=vae.eval(),
        text_encoder=None,
        tokenizer=None,
        transformer=transformer.eval(),
    )
    return TinyPipeline(pipe, (64, 80, 13), (3, 4, 5), masked_prompt)


def allegro() -> TinyPipeline:
    from diffusers import (
        AllegroPipeline,
        AllegroTransformer3DModel,
        AutoencoderKLAllegro,
        EulerDiscreteScheduler,
    )

    transformer = AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=24,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        cross_attention_dim=48,
        caption_channels=TEXT_DIM,
        sample_height=8,
        sample_width=10,
        sample_frames=3,
    )
    vae = AutoencoderKLAllegro(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )
    pipe = AllegroPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=vae.eval(),
        transformer=transformer.eval(),
        scheduler=EulerDiscreteScheduler(),
    )
    return TinyPipeline(pipe, (64, 80, 12), (3, 4, 5), masked_prompt, decodes=False, options={"negative_prompt": None})


def kandinsky5() -> TinyPipeline:
    from diffusers import Kandinsky5T2VPipeline, Kandinsky5Transformer3DModel

    transformer = Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=TEXT_DIM,
        in_text_dim2=8,
        time_dim=16,
        model_dim=32,
        ff_dim=48,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(4, 6, 6),
    )
    # diffusers starts these at zero, which shuts every attention off.
    for module in transformer.modules():
        if type(module).__name__ == "Kandinsky5Modulation":
            torch.nn.init.normal_(module.out_layer.weight, std=0.3)

    def prompt(batch: int) -> dict[str, Any]:
        arguments = {}
        for seed, prefix in ((1, ""), (2, "negative_")):
            arguments[f"{prefix}prompt_embeds_qwen"] = embeddings(batch, seed=seed)
            arguments[f"{prefix}prompt_embeds_clip"] = embeddings(batch, 8, seed=seed)[:, 0]
            arguments[f"{prefix}prompt_cu_seqlens"] = torch.arange(batch + 1, dtype=torch.int32) * TEXT
        return arguments

    parts = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipe = Kandinsky5T2VPipeline(
        transformer=transformer.eval(), vae=hunyuan_vae(), scheduler=flow_scheduler(shift=5.0), **parts
    )
    return TinyPipeline(pipe, (64, 80, 9), (3, 4, 5), prompt)


PIPELINES: dict[str, Callable[..., TinyPipeline]] = {
    "Wan 2.1": wan,
    "Wan 2.2, two transformers": wan22_two_transformers,
    "Wan 2.2 5B, a timestep for each token": lambda: wan(expand_timesteps=True),
    "Wan image to video": wan_image_to_video,
    "SkyReels-V2": skyreels_v2,
    "HunyuanVideo": hunyuan_video,
    "HunyuanVideo 1.5": hunyuan_video15,
    "CogVideoX with RoPE": lambda: cogvideox(rope=True),
    "CogVideoX with sincos": lambda: cogvideox(rope=False),
    "LTX-Video": ltx_video,
    "LTX-2": ltx2_pipeline,
    "Mochi": mochi,
    "Allegro": allegro,
    "Kandinsky 5": kandinsky5,
}


@dataclass
class TinyTransformer:
    """A transformer whose pipeline needs more than can be made here.

    Attributes:
        inputs: of one forward call with a given batch, on a grid of 3x4x5.
        layers: self-attention modules.
    """

    transformer: Any
    inputs: Callable[[int], dict[str, Any]]
    layers: int = 2

    @torch.no_grad()
    def __call__(self, batch: int = 1) -> Tensor:
        """The output for fixed inputs."""
        return self.transformer(**self.inputs(batch), return_dict=False)[0]


def video(batch: int, channels: int) -> Tensor:
    """``[batch, channels, frames, height, width]`` of 3x4x5 patches."""
    return torch.randn(batch, channels, 3, 8, 10, generator=torch.Generator().manual_seed(4))


def video_and_text(batch: int, channels: int = 8) -> dict[str, Any]:
    return {
        "hidden_states": video(batch, channels),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": embeddings(batch),
    }


def wan_config() -> dict[str, Any]:
    config = wan_transformer().config
    return {name: value for name, value in config.items() if not name.startswith("_")}


def wan_vace() -> TinyTransformer:
    from diffusers import WanVACETransformer3DModel

    transformer = WanVACETransformer3DModel(**wan_config(), vace_layers=[0, 1], vace_in_channels=6)
    return TinyTransformer(
        transformer.eval(), lambda batch: video_and_text(batch) | {"control_hidden_states": video(batch, 6)}, layers=4
    )


def chronoedit() -> TinyTransformer:
    from diffusers import ChronoEditTransformer3DModel

    return TinyTransformer(ChronoEditTransformer3DModel(**wan_config()).eval(), video_and_text)


def cosmos() -> TinyTransformer:
    from diffusers import CosmosTransformer3DModel

    transformer = CosmosTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        text_embed_dim=TEXT_DIM,
        encoder_hidden_states_channels=TEXT_DIM,
        adaln_lora_dim=4,
        max_size=(4, 16, 16),
        concat_padding_mask=False,
        extra_pos_embed_type=None,
    )
    return TinyTransformer(transformer.eval(), video_and_text)


def motif_video() -> TinyTransformer:
    from diffusers import MotifVideoTransformer3DModel

    transformer = MotifVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_single_layers=2,
        num_decoder_layers=1,
        text_embed_dim=TEXT_DIM,
        rope_axes_dim=(4, 6, 6),
    )
    return TinyTransformer(
        transformer.eval(), lambda batch: video_and_text(batch) | {"encoder_attention_mask": mask(batch)}, layers=3
    )


def easyanimate() -> TinyTransformer:
    from diffusers import EasyAnimateTransformer3DModel

    transformer = EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=8,
        out_channels=8,
        patch_size=2,
        num_layers=2,
        mmdit_layers=2,
        time_embed_dim=8,
        text_embed_dim=TEXT_DIM,
    )
    return TinyTransformer(transformer.eval(), video_and_text)


def ltx2(rope_type: str) -> TinyTransformer:
    transformer = ltx2_transformer(rope_type)

    def inputs(batch: int) -> dict[str, Any]:
        return {
            "hidden_states": embeddings(batch, 8, tokens=60),
            "audio_hidden_states": embeddings(batch, 4, tokens=7),
            "encoder_hidden_states": embeddings(batch),
            "audio_encoder_hidden_states": embeddings(batch),
            "timestep": torch.full((batch, 60), 500.0),
            "audio_timestep": torch.full((batch, 7), 500.0),
            "num_frames": 3,
            "height": 4,
            "width": 5,
            "audio_num_frames": 7,
        }

    return TinyTransformer(transformer, inputs)


TRANSFORMERS: dict[str, Callable[[], TinyTransformer]] = {
    "Wan VACE": wan_vace,
    "ChronoEdit": chronoedit,
    "Cosmos": cosmos,
    "Motif-Video": motif_video,
    "EasyAnimate": easyanimate,
    "LTX-2, interleaved": lambda: ltx2("interleaved"),
    "LTX-2, split": lambda: ltx2("split"),
}


@pytest.fixture(params=TRANSFORMERS)
def tiny_transformer(request: pytest.FixtureRequest) -> TinyTransformer:
    """One transformer of each family without a pipeline here."""
    torch.manual_seed(0)
    return TRANSFORMERS[request.param]()


@pytest.fixture(params=PIPELINES)
def tiny(request: pytest.FixtureRequest) -> TinyPipeline:
    """One pipeline of each family."""
    torch.manual_seed(0)
    return PIPELINES[request.param]()


@pytest.fixture
def make_tiny() -> Callable[..., TinyPipeline]:
    """Builds a family's pipeline by its name."""

    def make(name: str, **options: Any) -> TinyPipeline:
        torch.manual_seed(0)
        return PIPELINES[name](**options)

    return make
