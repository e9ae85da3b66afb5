"""Times one denoising step of a transformer of real size with random weights: dense against mode ripple.

Random weights say nothing about pictures. The budget is set so that the stated share is saved, as it would be by a
trained model whose attention allows it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers import WanTransformer3DModel
from pydantic import BaseModel
from torch import Tensor

from ripple_core.attention import AttentionCall, AttentionMethod, Executed, ripple_on_best_backend
from ripple_core.attention.config import RIPPLE_SCHEDULE
from ripple_core.bench.search import budget_that_saves
from ripple_core.bench.timing import Machine, Milliseconds, interleaved, peak_bytes, this_machine
from ripple_core.integrate import apply_method

_TEXT_TOKENS = 512
_VAE = (4, 8, 8)
_LARGEST_BUDGET = 100.0


@dataclass(frozen=True)
class StepModel:
    """A Wan 2.1 transformer.

    Attributes:
        blocks: of the real model.
        built: blocks that are built and timed; the other blocks are the same.
        config: arguments of `WanTransformer3DModel` but the number of layers.
    """

    blocks: int
    built: int
    config: dict[str, int]


STEP_MODELS = {
    "wan-1.3b": StepModel(30, 30, {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960}),
    "wan-14b": StepModel(40, 4, {"num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824}),
}
# Frames, height and width in pixels.
STEP_SIZES = {"480p": (81, 480, 832), "720p": (81, 720, 1280)}


class StepRow(BaseModel):
    """One model at one size and level of savings.

    Attributes:
        wanted_savings: what the budget was searched for. Noise tips over all at once, so that a little more budget may
            save much more.
        savings: of all attention FLOPs of the step, counted from what ran.
        attention_share: of the dense step's time; what is left of it when self-attention gives its values back.
        speed_up: of the step, of the blocks that were built.
        video_speed_up: projected, not measured: of all denoising steps when as many as the default schedule leaves
            dense are dense and the others are like this one.
    """

    model: str
    size: str
    tokens: int
    blocks: int
    built: int
    dtype: str
    budget: float
    wanted_savings: float
    savings: float
    dense: Milliseconds
    ours: Milliseconds
    attention_share: float
    speed_up: float
    video_steps: int
    video_speed_up: float
    dense_peak_bytes: int | None
    ours_peak_bytes: int | None


class StepReport(BaseModel):
    """The record of one run."""

    machine: Machine
    rows: list[StepRow]


@dataclass(frozen=True)
class StepRun:
    """What to time: every combination.

    Args:
        video_steps: denoising steps of the projected video.
    """

    models: Sequence[str] = tuple(STEP_MODELS)
    sizes: Sequence[str] = tuple(STEP_SIZES)
    savings: Sequence[float] = (0.6, 0.85)
    repeats: int = 3
    video_steps: int = 50
    dtype: torch.dtype = torch.bfloat16


@dataclass
class _AtBudget:
    """Mode ripple with one budget for all calls."""

    budget: float
    name: str = "ripple"
    aggressiveness: float = 1.0

    def attend(self, query: Tensor, key: Tensor, value: Tensor, call: AttentionCall) -> tuple[Tensor, Executed]:
        """See `AttentionMethod`."""
        return ripple_on_best_backend(query, key, value, call.grid, self.budget, call.scale, call.text_before)


class _NoAttention:
    name, aggressiveness = "none", 0.0

    def attend(self, query: Tensor, _key: Tensor, value: Tensor, _call: AttentionCall) -> tuple[Tensor, Executed]:
        """See `AttentionMethod`; the output is the values."""
        nothing = torch.zeros(query.shape[0], query.shape[2])
        return value, Executed(nothing, nothing)


@torch.no_grad()
def measure_steps(run: StepRun, device: torch.device, on_row: Callable[[StepRow], None] = lambda _: None) -> StepReport:
    """Time every combination; on_row is called with each row as it is done."""
    rows: list[StepRow] = []
    for name in run.models:
        model = STEP_MODELS[name]
        transformer = _build(model, run.dtype, device)
        for size in run.sizes:
            inputs = _inputs(transformer, STEP_SIZES[size], run.dtype, device)
            for wanted in run.savings:
                rows.append(_measure(_Step(transformer, inputs), run, (name, size), wanted))
                on_row(rows[-1])
    return StepReport(machine=this_machine(device), rows=rows)


def _build(model: StepModel, dtype: torch.dtype, device: torch.device) -> WanTransformer3DModel:
    torch.manual_seed(0)
    with torch.device(device):
        transformer = WanTransformer3DModel(num_layers=model.built, **model.config)
    # As `from_pretrained` casts: what diffusers keeps in float32 stays.
    for name, parameter in transformer.named_parameters():
        if not any(kept in name for kept in transformer._keep_in_fp32_modules):
            parameter.data = parameter.data.to(dtype)
    return transformer.eval()


def _inputs(
    transformer: WanTransformer3DModel, pixels: tuple[int, int, int], dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """Random latents of a video and a prompt of the full length."""
    frames, height, width = (-(-size // factor) for size, factor in zip(pixels, _VAE, strict=True))
    config = transformer.config
    latents = torch.randn(1, config.in_channels, frames, height, width, dtype=dtype, device=device)
    prompt = torch.randn(1, _TEXT_TOKENS, config.text_dim, dtype=dtype, device=device)
    timestep = torch.tensor([500.0], device=device)
    return {"hidden_states": latents, "encoder_hidden_states": prompt, "timestep": timestep}


@dataclass(frozen=True)
class _Step:
    transformer: WanTransformer3DModel
    inputs: dict[str, Tensor]

    def run(self, method: AttentionMethod | None) -> tuple[float, int]:
        """One forward call, dense without a method; savings of its attention, and its tokens."""
        handle = apply_method(self.transformer, method)
        try:
            handle.set_step(0, 1)
            self.transformer(**self.inputs, return_dict=False)
            report = handle.report()
        finally:
            handle.remove()
        return report.savings, report.tokens


def _measure(step: _Step, run: StepRun, names: tuple[str, str], wanted: float) -> StepRow:
    device, model = next(step.transformer.parameters()).device, STEP_MODELS[names[0]]
    budget = budget_that_saves(wanted, lambda budget: step.run(_AtBudget(budget))[0], _LARGEST_BUDGET)
    methods = (None, _AtBudget(budget), _NoAttention())
    dense, ours, without = interleaved([lambda m=m: step.run(m) for m in methods], run.repeats, device)  # type: ignore[misc]
    savings, tokens = step.run(_AtBudget(budget))
    reusing = sum(RIPPLE_SCHEDULE.strength(i, run.video_steps) is not None for i in range(run.video_steps))
    video_ms = (run.video_steps - reusing) * dense.median + reusing * ours.median
    return StepRow(
        model=names[0],
        size=names[1],
        tokens=tokens,
        blocks=model.blocks,
        built=model.built,
        dtype=str(run.dtype).removeprefix("torch."),
        budget=budget,
        wanted_savings=wanted,
        savings=savings,
        dense=dense,
        ours=ours,
        attention_share=1 - without.median / dense.median,
        speed_up=dense.median / ours.median,
        video_steps=run.video_steps,
        video_speed_up=run.video_steps * dense.median / video_ms,
        dense_peak_bytes=peak_bytes(lambda: step.run(None), device),
        ours_peak_bytes=peak_bytes(lambda: step.run(_AtBudget(budget)), device),
    )
