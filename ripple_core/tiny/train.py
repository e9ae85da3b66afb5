"""Trains the built-in model from nothing: `python -m ripple_core.tiny.train`.

The VAE starts as a linear codec in closed form. Transformer and text encoder learn flow matching on its latents:
first on every fourth token in y and x, then on every second, then on all of every third frame, last on all: fewer
tokens cost less; what the caption means and how things move is learned from some places of all frames, what shapes
look like from all places of some frames. Then the VAE's decoder learns to add the detail. Every
step draws its data from (seed, step) and a stopped run resumes from its last checkpoint, so the result depends on the
seed, the step counts and the model it starts from, if any.
"""

import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from rich.progress import track
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from ripple_core.contract.models import BUILTIN_MODEL_FOLDER, BUILTIN_MODEL_ID, SPEC_FILE
from ripple_core.tiny import architecture
from ripple_core.tiny.caption_start import start_with_captions, start_with_word_order
from ripple_core.tiny.clips import (
    BACKGROUNDS,
    COLOURS,
    FPS,
    HEIGHT,
    MOTION_PHRASES,
    NUM_FRAMES,
    SHAPES,
    WIDTH,
    random_scene,
    render,
    training_caption,
)
from ripple_core.tiny.linear_start import LinearCodec, start_linear
from ripple_core.tiny.muon import Muon
from ripple_core.tiny.position_start import start_with_position

_LINEAR_START_CLIPS = 128
_DECODER_BATCH = 2
_DECODER_FRAMES = 9
_DECODER_SIDE = 64
_LATENT_NOISE = 0.1
_MAX_WORDS = 24
# Side of the square of pixels that one token shows: 2x2 latents of 4x4 pixels.
_TOKEN_PIXELS = 8
# What WanPipeline pads prompts to when it is called without max_sequence_length.
_PIPELINE_TEXT_TOKENS = 512
_SIGMA_SCALE = 1.5
_ADAM_LEARNING_RATE = 0.9e-3
_MUON_LEARNING_RATE = 3e-3
_DECODER_LEARNING_RATE = 1.5e-4
_CHECKPOINT_EVERY = 50
# Two objects have far more combinations to learn than one.
_TWO_OBJECTS_SHARE = 0.4
# Opens the part of the model card that tells how it was trained.
_TRAINING = "Training, by "


@dataclass(frozen=True)
class Stage:
    """A part of the transformer's training: every stride-th token in y and x of every frame_stride-th latent frame.

    Sigmas are logit-normal. What the caption means shows only where noise hides the clip: the first stage is for that.
    """

    name: str
    frame_stride: int
    stride: int
    batch: int
    sigma_location: float

    @property
    def strides(self) -> tuple[int, int, int]:
        """Of t, y and x."""
        return self.frame_stride, self.stride, self.stride


STAGES = (
    Stage("one token in 16", 1, 4, 16, 3.0),
    Stage("one token in 4", 1, 2, 12, 1.5),
    Stage("one frame in 3", 3, 1, 8, 1.5),
    Stage("all tokens", 1, 1, 4, 1.5),
)


class Checkpoint:
    """State of one training stage in a file; a stage that finds its file goes on from there."""

    def __init__(self, path: Path, parts: dict[str, Any]) -> None:
        self.path = path
        self.parts = parts

    def load(self) -> int:
        """Restore all parts and return the number of steps already done (0 when there is no file)."""
        if not self.path.exists():
            return 0
        state = torch.load(self.path, weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return int(state["step"])

    def save(self, step: int) -> None:
        """Write all parts under a temporary name, then rename."""
        temporary = self.path.with_suffix(".tmp")
        torch.save({"step": step} | {name: part.state_dict() for name, part in self.parts.items()}, temporary)
        temporary.rename(self.path)


def _learning_rate_factor(step: int, decay_from: int, num_steps: int) -> float:
    warmup = min((step + 1) / 50, 1.0)
    return min(warmup, (num_steps - step) / max(num_steps - decay_from, 1))


def _optimise(optimisers: list[torch.optim.Optimizer], loss: torch.Tensor, factor: float) -> None:
    loss.backward()
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
            group["lr"] = group["initial_lr"] * factor
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def _optimisers(modules: list[torch.nn.Module]) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside blocks, AdamW for everything else."""
    named = [item for module in modules for item in module.named_parameters() if item[1].requires_grad]
    matrices = [p for name, p in named if p.ndim == 2 and "block" in name and "table" not in name]
    ids = {id(p) for p in matrices}
    others = [p for _, p in named if id(p) not in ids]
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, lr=_ADAM_LEARNING_RATE, betas=(0.9, 0.99))]
    optimisers.append(Muon(matrices, lr=_MUON_LEARNING_RATE))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["initial_lr"] = group["lr"]
    return optimisers


def _to_tensor(clips: list[np.ndarray]) -> torch.Tensor:
    """uint8 [frames, y, x, 3] each -> float [batch, 3, frames, y, x] in -1..1."""
    return torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def start_vae() -> tuple[AutoencoderKLWan, LinearCodec]:
    """The VAE as a linear codec, its encoder done and its latents_mean and latents_std set.

    The codec is the same whatever the seed, so that a run may go on from a model of another seed.
    """
    rng = np.random.default_rng((0, 0))
    vae = architecture.build_vae()
    clips = _to_tensor([render(random_scene(rng), rng) for _ in range(_LINEAR_START_CLIPS)])
    codec = start_linear(vae, clips)
    latents = codec.encode(clips)
    mean, std = latents.mean((0, 2, 3, 4)), latents.std()
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=[std.item()] * len(mean))
    return vae.eval(), codec


def train_decoder(vae: AutoencoderKLWan, codec: LinearCodec, num_steps: int, seed: int, work: Path) -> None:
    """Sharpen the decoder: L1 + L2 to the pixels, from latents with the noise a generated one will have."""
    parts = [vae.post_quant_conv, vae.decoder]
    optimiser = torch.optim.AdamW(
        [p for part in parts for p in part.parameters()], lr=_DECODER_LEARNING_RATE, betas=(0.9, 0.99)
    )
    optimiser.param_groups[0]["initial_lr"] = _DECODER_LEARNING_RATE
    checkpoint = Checkpoint(work / "decoder.pt", {"vae": vae, "optimiser": optimiser})
    start = checkpoint.load()
    squared: list[float] = []
    began = time.monotonic()
    for step in track(range(start, num_steps), "Decoder", total=num_steps, completed=start):
        rng = np.random.default_rng((seed, 2, step))
        torch.manual_seed(seed * 1_000_003 + step)
        pixels = _to_tensor([_crop(render(random_scene(rng), rng), rng) for _ in range(_DECODER_BATCH)])
        latents = codec.encode(pixels)
        error = vae.decode(latents + _LATENT_NOISE * torch.randn_like(latents)).sample - pixels
        loss = error.abs().mean() + error.square().mean()
        _optimise([optimiser], loss, _learning_rate_factor(step, num_steps // 2, num_steps))
        squared.append(error.square().mean().item())
        if (step + 1) % _CHECKPOINT_EVERY == 0 or step + 1 == num_steps:
            checkpoint.save(step + 1)
            recent, seconds = float(np.mean(squared[-_CHECKPOINT_EVERY:])), time.monotonic() - began
            _log(work, stage="decoder", step=step + 1, psnr_db=-10 * math.log10(recent / 4), seconds=seconds)
            began = time.monotonic()


def _crop(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The first frames of a random square, on the grid of the codec's patches."""
    y, x = 4 * rng.integers(0, (np.array(frames.shape[1:3]) - _DECODER_SIDE) // 4 + 1)
    return frames[:_DECODER_FRAMES, y : y + _DECODER_SIDE, x : x + _DECODER_SIDE]


class ThinnedRope(torch.nn.Module):
    """Rotary embedding of every n-th token in t, y and x, at the places these tokens have in the whole grid.

    Args:
        strides: of t, y and x.
        offset: place of the first token in t, y and x, each below its stride.
    """

    def __init__(self, rope: torch.nn.Module, strides: tuple[int, int, int], offset: tuple[int, int, int]) -> None:
        super().__init__()
        self.rope = rope
        self.strides = strides
        self.offset = offset

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines ``[1, tokens, 1, head_dim]`` for thinned latents ``[batch, z, t, y, x]``."""
        frames, height, width = (size * stride for size, stride in zip(latents.shape[2:], self.strides, strict=True))
        cos, sin = self.rope(latents.new_empty(1, 1, frames, height, width))
        grid = (frames, height // 2, width // 2)
        kept = (slice(None), *(slice(start, None, n) for start, n in zip(self.offset, self.strides, strict=True)))
        cos, sin = (part.unflatten(1, grid)[kept].flatten(1, 3) for part in (cos, sin))
        return cos, sin


def thin(frames: np.ndarray, stride: int, offset: tuple[int, int]) -> np.ndarray:
    """Every n-th square of one token's pixels: frames ``[frames, y, x, 3]``, y and x then divided by the stride."""
    side = _TOKEN_PIXELS
    count, height, width, _ = frames.shape
    squares = frames.reshape(count, height // side, side, width // side, side, 3)
    y, x = offset
    return squares[:, y::stride, :, x::stride].reshape(count, height // stride, width // stride, 3)


class PaddingAsBias:
    """Cross-attention as over a prompt padded to 512, computed on a short one: the last key counts for the rest.

    Exact, because all padding tokens are the same zero vector: n equal keys are one key with log(n) added to its
    score. Used in training only; it saves a quarter of the time.
    """

    def __init__(self, num_tokens: int) -> None:
        bias = torch.zeros(1, 1, 1, num_tokens)
        bias[..., -1] = math.log(_PIPELINE_TEXT_TOKENS - num_tokens + 1)
        self.bias = bias

    def __call__(  # noqa: D102 - the interface of diffusers' attention processors
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, *_: Any
    ) -> torch.Tensor:
        query = attn.norm_q(attn.to_q(hidden_states))
        key = attn.norm_k(attn.to_k(encoder_hidden_states))
        value = attn.to_v(encoder_hidden_states)
        query, key, value = (x.unflatten(2, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value))
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=self.bias)
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def _encode_text(
    text_encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerFast, captions: list[str]
) -> torch.Tensor:
    """Prompt embeddings ``[batch, words, channels]`` as WanPipeline makes them: padding set to zero."""
    tokens = tokenizer(captions, padding="max_length", max_length=_MAX_WORDS, truncation=True, return_tensors="pt")
    hidden = text_encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    return hidden * tokens.attention_mask[..., None]


@torch.no_grad()
def _typical_words(text_encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerFast, seed: int) -> torch.Tensor:
    """Text embeddings of the words of some captions, ``[words, channels]``."""
    rng = np.random.default_rng((seed, 3))
    text = _encode_text(text_encoder, tokenizer, [training_caption(random_scene(rng), rng) for _ in range(64)])
    return text[text.abs().amax(-1) > 0]


class Denoiser:
    """Transformer and text encoder in training: flow matching, noise - latents predicted from their mixture."""

    def __init__(self, transformer: WanTransformer3DModel, text_encoder: UMT5EncoderModel) -> None:
        self.transformer = transformer
        self.text_encoder = text_encoder
        self.tokenizer = architecture.build_tokenizer()
        self.stock_rope = transformer.rope

    def loss(
        self,
        clean: torch.Tensor,
        captions: list[str],
        stage: Stage,
        offset: tuple[int, int, int],
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Mean squared error at one sigma per clip.

        Args:
            clean: normalised latents of thinned clips.
            stage: strides they were thinned with, and the location of the sigmas.
            offset: in t, y and x, they were thinned with.
            generator: of noise and sigmas.
        """
        self.transformer.rope = ThinnedRope(self.stock_rope, stage.strides, offset)
        noise = torch.randn(clean.shape, generator=generator)
        sigma = torch.sigmoid(stage.sigma_location + _SIGMA_SCALE * torch.randn(len(clean), generator=generator))
        mix = sigma.view(-1, 1, 1, 1, 1)
        text = _encode_text(self.text_encoder, self.tokenizer, captions)
        predicted = self.transformer((1 - mix) * clean + mix * noise, sigma * 1000, text, return_dict=False)[0]
        return F.mse_loss(predicted, noise - clean)


def train_transformer(
    transformer: WanTransformer3DModel,
    text_encoder: UMT5EncoderModel,
    encode: Callable[[torch.Tensor], torch.Tensor],
    steps: Sequence[int],
    seed: int,
    work: Path,
    bfloat16: bool = False,
) -> None:
    """All stages; the learning rate is constant and falls to zero over the last two fifths of the steps.

    Args:
        steps: of each stage.
        encode: from clips ``[batch, 3, frames, height, width]`` to normalised latents ``[batch, z, t, y, x]``.
        bfloat16: forward and backward in bfloat16; weights and their updates are float32 either way.
    """
    stock = dict(transformer.attn_processors)
    for block in transformer.blocks:
        block.attn2.set_processor(PaddingAsBias(_MAX_WORDS))
    denoiser = Denoiser(transformer, text_encoder)
    optimisers = _optimisers([transformer, text_encoder])
    parts: dict[str, Any] = {"transformer": transformer, "text_encoder": text_encoder}
    parts |= {f"optimiser{index}": optimiser for index, optimiser in enumerate(optimisers)}
    checkpoint = Checkpoint(work / "transformer.pt", parts)
    start, num_steps = checkpoint.load(), sum(steps)
    stage_of = [stage for stage, count in zip(STAGES, steps, strict=True) for _ in range(count)]
    losses: list[float] = []
    began = time.monotonic()
    for step in track(range(start, num_steps), "Transformer", total=num_steps, completed=start):
        stage = stage_of[step]
        rng = np.random.default_rng((seed, 1, step))
        scenes = [random_scene(rng, two_objects_share=_TWO_OBJECTS_SHARE) for _ in range(stage.batch)]
        captions = [training_caption(scene, rng) for scene in scenes]
        t, y, x = (int(rng.integers(stride)) for stride in stage.strides)
        clips = [thin(render(scene, rng), stage.stride, (y, x)) for scene in scenes]
        clean = encode(_to_tensor(clips))[:, :, t :: stage.frame_stride]
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = denoiser.loss(clean, captions, stage, (t, y, x), generator)
        _optimise(optimisers, loss, _learning_rate_factor(step, num_steps * 3 // 5, num_steps))
        losses.append(loss.item())
        if (step + 1) % _CHECKPOINT_EVERY == 0 or step + 1 == num_steps:
            checkpoint.save(step + 1)
            recent, seconds = float(np.mean(losses[-_CHECKPOINT_EVERY:])), time.monotonic() - began
            _log(work, stage=stage.name, step=step + 1, loss=recent, seconds=seconds)
            began = time.monotonic()
    transformer.rope = denoiser.stock_rope
    for name, processor in stock.items():
        transformer.get_submodule(name.removesuffix(".processor")).set_processor(processor)


def _claim(work: Path, command: str) -> None:
    """Take a new work folder, or one of the same run: checkpoints of another would be taken for its own."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / "command.txt"
    if path.exists() and path.read_text(encoding="utf-8") != command:
        message = f"{work} holds checkpoints of another run ({path.read_text(encoding='utf-8')}); name another folder."
        raise typer.BadParameter(message, param_hint="--work")
    path.write_text(command, encoding="utf-8")


def _log(work: Path, **record: Any) -> None:
    with (work / "log.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


def _model_card(command: str, steps: Sequence[int], work: Path, start_from: Path | None) -> str:
    log = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    last = {record["stage"]: record for record in log}
    minutes = {stage: sum(r["seconds"] for r in log if r["stage"] == stage) / 60 for stage in last}
    rows = [
        f"| transformer, {stage.name} | {count} | {minutes[stage.name]:.0f} | loss {last[stage.name]['loss']:.4f} |"
        for stage, count in zip(STAGES, steps, strict=True)
        if count
    ]
    if "decoder" in last:
        decoder = last["decoder"]
        rows.append(f"| VAE decoder | {decoder['step']} | {minutes['decoder']:.0f} | {decoder['psnr_db']:.1f} dB |")
    table = "\n".join(rows)
    earlier = (start_from / "README.md").read_text().partition(_TRAINING)[2] if start_from else ""
    return f"""# timeripple/builtin

A complete `WanPipeline` folder small enough for a laptop, trained from nothing on synthetic clips of
{WIDTH}x{HEIGHT} pixels and {NUM_FRAMES} frames: one or two coloured shapes over a plain or striped background.
Licence: Apache-2.0.

Prompts it knows, one object or two:

- "a red circle moving left on a dark background"
- "a red circle moving left above a blue ring standing still on a striped background"

| | |
|---|---|
| colours | {", ".join(COLOURS)} |
| shapes | {", ".join(SHAPES)} |
| motions | {", ".join(phrases[0] for phrases in MOTION_PHRASES.values())} (of two objects: left, right, still) |
| backgrounds | {", ".join(BACKGROUNDS)} |

{_TRAINING}`{command}`:

| stage | steps | minutes | at the end |
|---|---|---|---|
{table}

Loss and PSNR are means over {_CHECKPOINT_EVERY} steps.
Hardware: {platform.machine()}, {torch.get_num_threads()} CPU threads,
shared with other work; torch {torch.__version__}. An eighth of all scenes (`Scene.held_out`) is never trained on.
""" + (f"\nBefore that, by {earlier}" if earlier else "")


_SPEC = {
    "id": BUILTIN_MODEL_ID,
    "description": "Built-in toy model: one or two coloured shapes over a plain or striped background",
    "defaults": {
        "width": WIDTH,
        "height": HEIGHT,
        "num_frames": NUM_FRAMES,
        "fps": FPS,
        "num_inference_steps": 20,
        "guidance_scale": 3.0,
    },
    "max_size": 256,
    "max_frames": 65,
}


def main(
    out: Annotated[Path, typer.Option(help="Folder the finished pipeline is written to.")] = BUILTIN_MODEL_FOLDER,
    work: Annotated[Path, typer.Option(help="Folder for checkpoints and the log.")] = Path(".train"),
    seed: Annotated[int, typer.Option(help="Seed of weights and data.")] = 0,
    steps: Annotated[
        tuple[int, int, int, int],
        typer.Option(help="Steps of the transformer on one token in 16, on one in 4, on one frame in 3, and on all."),
    ] = (700, 600, 3800, 900),
    decoder_steps: Annotated[int, typer.Option(help="Steps of the VAE's decoder.")] = 1600,
    start_from: Annotated[
        Path | None, typer.Option(help="Pipeline folder that this command wrote, to train on instead of from nothing.")
    ] = None,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="Compute in bfloat16: a quarter faster on CPUs that have units for it.")
    ] = False,
) -> None:
    """Train the built-in model and write it as a diffusers pipeline folder. Resumes from --work.

    The default steps are as many as the shipped weights have had, in one run; those had them in two, the second
    started from the first, as their model card tells.
    """
    command = "python -m ripple_core.tiny.train" + "".join(
        f" --{name} {value}"
        for name, value in (
            ("seed", seed), ("steps", " ".join(map(str, steps))), ("decoder-steps", decoder_steps),
        )
    ) + ("" if start_from is None else f" --start-from {start_from}") + (" --bfloat16" if bfloat16 else "")  # fmt: skip
    _claim(work, command)
    torch.manual_seed(seed)
    vae, codec = start_vae()
    transformer = architecture.build_transformer()
    tokenizer = architecture.build_tokenizer()
    text_encoder = architecture.build_text_encoder(len(tokenizer))
    start_with_position(transformer)
    start_with_word_order(text_encoder)
    start_with_captions(transformer, text_encoder, _typical_words(text_encoder, tokenizer, seed))
    if start_from is not None:
        for part, name in ((transformer, "transformer"), (text_encoder, "text_encoder"), (vae, "vae")):
            part.load_state_dict(type(part).from_pretrained(start_from / name).state_dict())
    mean, std = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1), vae.config.latents_std[0]
    train_transformer(
        transformer, text_encoder, lambda clips: (codec.encode(clips) - mean) / std, steps, seed, work, bfloat16
    )
    train_decoder(vae, codec, decoder_steps, seed, work)
    architecture.build_pipeline(transformer.eval(), vae, text_encoder.eval(), tokenizer).save_pretrained(out)
    (out / "README.md").write_text(_model_card(command, steps, work, start_from))
    (out / SPEC_FILE).write_text(json.dumps(_SPEC, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
