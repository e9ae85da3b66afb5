"""Trains the built-in model from nothing: `python -m ripple_core.tiny.train`.

The VAE starts as a linear codec in closed form; its encoder is then done. The transformer and the text encoder learn
flow matching on its latents, and last the VAE's decoder learns to add the detail. Every step draws its data from
(seed, step) and a stopped run resumes from its last checkpoint, so the result depends on the seed and the step counts
alone. The learning rate is constant and falls to zero over the last part of each stage.
"""

import json
import math
import platform
import time
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
from ripple_core.tiny.clips import FPS, HEIGHT, NUM_FRAMES, WIDTH, random_scene, render, training_caption
from ripple_core.tiny.linear_start import start_linear
from ripple_core.tiny.muon import Muon

_LINEAR_START_CLIPS = 128
_DECODER_BATCH = 2
_DECODER_FRAMES = 9
_LATENT_NOISE = 0.1
_BATCH = 12
_DATASET_CLIPS = 4096
_MAX_WORDS = 16
# What WanPipeline pads prompts to when it is called without max_sequence_length.
_PIPELINE_TEXT_TOKENS = 512
_DECAY_SHARE = 0.3
_CHECKPOINT_EVERY = 100


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


def _learning_rate_factor(step: int, num_steps: int) -> float:
    warmup = min((step + 1) / 50, 1.0)
    return min(warmup, (num_steps - step) / max(_DECAY_SHARE * num_steps, 1))


def _optimise(optimisers: list[torch.optim.Optimizer], loss: torch.Tensor, factor: float) -> None:
    loss.backward()
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
            group["lr"] = group["initial_lr"] * factor
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def _optimisers(modules: list[torch.nn.Module], learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside blocks, AdamW for everything else."""
    named = [item for module in modules for item in module.named_parameters()]
    matrices = [p for name, p in named if p.ndim == 2 and "block" in name and "table" not in name]
    ids = {id(p) for p in matrices}
    others = [p for _, p in named if id(p) not in ids]
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.99))]
    if matrices:
        optimisers.append(Muon(matrices, lr=learning_rate))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["initial_lr"] = group["lr"]
    return optimisers


def _to_tensor(clips: list[np.ndarray]) -> torch.Tensor:
    """uint8 [frames, y, x, 3] each -> float [batch, 3, frames, y, x] in -1..1."""
    return torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def start_vae(seed: int) -> AutoencoderKLWan:
    """The VAE as a linear codec; its encoder stays as it is."""
    rng = np.random.default_rng((seed, 0))
    vae = architecture.build_vae()
    start_linear(vae, _to_tensor([render(random_scene(rng), rng) for _ in range(_LINEAR_START_CLIPS)]))
    return vae.eval()


def train_decoder(vae: AutoencoderKLWan, num_steps: int, seed: int, work: Path) -> None:
    """Sharpen the decoder: L1 + L2 to the pixels, from latents with the noise a generated one will have."""
    parts = [vae.post_quant_conv, vae.decoder]
    optimiser = torch.optim.AdamW([p for part in parts for p in part.parameters()], lr=1.5e-4, betas=(0.9, 0.99))
    optimiser.param_groups[0]["initial_lr"] = 1.5e-4
    checkpoint = Checkpoint(work / "decoder.pt", {"vae": vae, "optimiser": optimiser})
    start = checkpoint.load()
    for step in track(range(start, num_steps), "Decoder", total=num_steps, completed=start):
        rng = np.random.default_rng((seed, 2, step))
        torch.manual_seed(seed * 1_000_003 + step)
        pixels = _to_tensor([render(random_scene(rng), rng)[:_DECODER_FRAMES] for _ in range(_DECODER_BATCH)])
        with torch.no_grad():
            latents = vae.encode(pixels).latent_dist.mode()
        error = vae.decode(latents + _LATENT_NOISE * torch.randn_like(latents)).sample - pixels
        _optimise([optimiser], error.abs().mean() + error.square().mean(), _learning_rate_factor(step, num_steps))
        if (step + 1) % _CHECKPOINT_EVERY == 0 or step + 1 == num_steps:
            checkpoint.save(step + 1)
            _log(work, stage="decoder", step=step + 1, psnr_db=-10 * math.log10(error.square().mean().item() / 4))


@torch.no_grad()
def encode_dataset(vae: AutoencoderKLWan, seed: int, work: Path) -> tuple[torch.Tensor, list[str]]:
    """Normalised latents ``[clips, z, t, y, x]`` and their captions; sets the VAE's latents_mean and latents_std."""
    path = work / "dataset.pt"
    if path.exists():
        state = torch.load(path, weights_only=True)
    else:
        latents, captions = [], []
        for index in track(range(_DATASET_CLIPS // 8), "Encoding clips"):
            rng = np.random.default_rng((seed, 1, index))
            scenes = [random_scene(rng) for _ in range(8)]
            latents.append(vae.encode(_to_tensor([render(scene, rng) for scene in scenes])).latent_dist.mode())
            captions += [training_caption(scene, rng) for scene in scenes]
        state = {"latents": torch.cat(latents), "captions": captions}
        torch.save(state, path)
    latents = state["latents"]
    mean, std = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    shape = (1, -1, 1, 1, 1)
    return (latents - mean.view(shape)) / std.view(shape), state["captions"]


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


def train_transformer(
    transformer: WanTransformer3DModel,
    text_encoder: UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
    latents: torch.Tensor,
    captions: list[str],
    num_steps: int,
    seed: int,
    work: Path,
) -> None:
    """Flow matching: predict noise - latents from (1 - sigma) latents + sigma noise, sigma logit-normal."""
    stock = dict(transformer.attn_processors)
    for block in transformer.blocks:
        block.attn2.set_processor(PaddingAsBias(_MAX_WORDS))
    optimisers = _optimisers([transformer, text_encoder], 2e-3)
    parts = {"transformer": transformer, "text_encoder": text_encoder}
    parts |= {f"optimiser{index}": optimiser for index, optimiser in enumerate(optimisers)}
    checkpoint = Checkpoint(work / "transformer.pt", parts)
    start = checkpoint.load()
    losses: list[float] = []
    began = time.monotonic()
    for step in track(range(start, num_steps), "Transformer", total=num_steps, completed=start):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        chosen = torch.randint(len(latents), (_BATCH,), generator=generator)
        clean = latents[chosen]
        noise = torch.randn(clean.shape, generator=generator)
        sigma = torch.sigmoid(0.4 + 1.2 * torch.randn(_BATCH, generator=generator))
        mix = sigma.view(-1, 1, 1, 1, 1)
        text = _encode_text(text_encoder, tokenizer, [captions[index] for index in chosen.tolist()])
        predicted = transformer((1 - mix) * clean + mix * noise, sigma * 1000, text, return_dict=False)[0]
        loss = F.mse_loss(predicted, noise - clean)
        _optimise(optimisers, loss, _learning_rate_factor(step, num_steps))
        losses.append(loss.item())
        if (step + 1) % _CHECKPOINT_EVERY == 0 or step + 1 == num_steps:
            checkpoint.save(step + 1)
            recent = float(np.mean(losses[-_CHECKPOINT_EVERY:]))
            _log(work, stage="transformer", step=step + 1, loss=recent, seconds=time.monotonic() - began)
    for name, processor in stock.items():
        transformer.get_submodule(name.removesuffix(".processor")).set_processor(processor)


def _log(work: Path, **record: Any) -> None:
    with (work / "log.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


def _model_card(seed: int, decoder_steps: int, steps: int, log: list[dict[str, Any]]) -> str:
    last = [record for record in log if record["stage"] == "transformer"][-1]
    return f"""# timeripple/builtin

A complete `WanPipeline` folder small enough for a laptop, trained from nothing on synthetic clips of
{WIDTH}x{HEIGHT} pixels and {NUM_FRAMES} frames: one coloured shape moving over a plain background.
Prompts look like "a red circle moving left on a dark background". Licence: Apache-2.0.

- Command: `python -m ripple_core.tiny.train --seed {seed} --decoder-steps {decoder_steps} --steps {steps}`
- Final flow-matching loss (mean of the last {_CHECKPOINT_EVERY} steps): {last["loss"]:.4f}
- Trained with torch {torch.__version__} on {platform.machine()}, {torch.get_num_threads()} CPU threads
"""


def main(
    out: Annotated[Path, typer.Option(help="Folder the finished pipeline is written to.")] = BUILTIN_MODEL_FOLDER,
    work: Annotated[Path, typer.Option(help="Folder for checkpoints and the log.")] = Path(".train"),
    seed: Annotated[int, typer.Option(help="Seed of weights and data.")] = 0,
    decoder_steps: Annotated[int, typer.Option(help="Training steps of the VAE's decoder.")] = 600,
    steps: Annotated[int, typer.Option(help="Training steps of transformer and text encoder.")] = 1900,
) -> None:
    """Train the built-in model and write it as a diffusers pipeline folder. Resumes from --work."""
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    tokenizer = architecture.build_tokenizer()
    vae, transformer = start_vae(seed), architecture.build_transformer()
    text_encoder = architecture.build_text_encoder(len(tokenizer))
    latents, captions = encode_dataset(vae, seed, work)
    train_transformer(transformer, text_encoder, tokenizer, latents, captions, steps, seed, work)
    train_decoder(vae, decoder_steps, seed, work)
    architecture.build_pipeline(transformer.eval(), vae, text_encoder.eval(), tokenizer).save_pretrained(out)
    log = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    (out / "README.md").write_text(_model_card(seed, decoder_steps, steps, log))
    spec = {
        "id": BUILTIN_MODEL_ID,
        "description": "Built-in toy model: a coloured shape moving over a plain background",
        "defaults": {
            "width": WIDTH,
            "height": HEIGHT,
            "num_frames": NUM_FRAMES,
            "fps": FPS,
            "num_inference_steps": 30,
            "guidance_scale": 3.0,
        },
        "max_size": 256,
        "max_frames": 65,
    }
    (out / SPEC_FILE).write_text(json.dumps(spec, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
