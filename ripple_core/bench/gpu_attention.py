"""Times attention on a GPU at the sizes of real models: Triton kernels against every dense kernel that torch has."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic import BaseModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ripple_core.attention import LatentGrid
from ripple_core.attention.kernels.config import KernelConfig, kernel_config
from ripple_core.attention.kernels.ripple import decide_only, triton_ripple_attention
from ripple_core.attention.reference import reference_attention, reference_objective, reference_query_tiles
from ripple_core.bench.attention_inputs import AttentionInputs, synthetic_inputs
from ripple_core.bench.search import budget_that_saves
from ripple_core.bench.timing import Machine, Milliseconds, interleaved, peak_bytes, this_machine
from ripple_core.bench.video_sizes import VideoSize
from ripple_core.generate.load import device_name

_SDPA = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
_LARGEST_BUDGET = 30.0
# Of white noise nothing can be reused; this budget is that of the middle of the dial.
_NOISE_BUDGET = 0.3
# Relative error that bfloat16 alone may cause.
_ROUNDING = 0.02


class GpuAttentionRow(BaseModel):
    """One size at one level of savings. Times are of whole calls, preparing and deciding included.

    Attributes:
        inputs: "smooth" is the synthetic field, "noise" has nothing to reuse.
        savings: of all attention FLOPs, counted from what ran.
        dense: time of each dense kernel; those that refuse the call are left out.
        deciding: time of the first two passes alone.
        speed_up: the fastest dense kernel's median over ours.
        deciding_share: the passes' median over that of the fastest dense kernel.
    """

    size: str
    inputs: str
    tokens: int
    heads: int
    head_dim: int
    dtype: str
    config: dict[str, int]
    budget: float
    savings: float
    relative_error: float
    dense: dict[str, Milliseconds]
    fastest_dense: str
    ours: Milliseconds
    deciding: Milliseconds
    speed_up: float
    deciding_share: float
    dense_peak_bytes: int | None
    ours_peak_bytes: int | None


class GpuAttentionReport(BaseModel):
    """The record of one run."""

    machine: Machine
    rows: list[GpuAttentionRow]


@dataclass(frozen=True)
class GpuAttentionRun:
    """What to time.

    Args:
        sizes: by name.
        savings: of all attention, 0..1; the budget for each is searched for.
        repeats: timed calls of each kind, in turn.
    """

    sizes: Mapping[str, VideoSize]
    savings: Sequence[float] = (0.6, 0.85, 0.9)
    repeats: int = 5
    dtype: torch.dtype = torch.bfloat16


class WrongOutput(RuntimeError):
    """The kernels do not compute what they should; nothing is timed then."""


@torch.no_grad()
def measure_gpu_attention(
    run: GpuAttentionRun, device: torch.device, on_row: Callable[[GpuAttentionRow], None] = lambda _: None
) -> GpuAttentionReport:
    """Check the kernels on a small size, then time every size; on_row is called with each row as it is done.

    Raises:
        WrongOutput: when the check fails.
    """
    check_kernels(device)
    rows: list[GpuAttentionRow] = []
    for name, size in run.sizes.items():
        smooth = smooth_inputs(size, run.dtype, device)
        for wanted in run.savings:
            rows.append(_measure(name, "smooth", smooth, budget_for(smooth, wanted), run.repeats))
            on_row(rows[-1])
        del smooth
        noise = _white_noise(size, run.dtype, device)
        rows.append(_measure(name, "noise", noise, _NOISE_BUDGET, run.repeats))
        on_row(rows[-1])
        del noise
    return GpuAttentionReport(machine=this_machine(device), rows=rows)


def check_kernels(device: torch.device) -> None:
    """Compare with the float64 reference on an odd grid with text where all treatments occur, in float32.

    Raises:
        WrongOutput: when they differ.
    """
    grid, budget, scale, config = LatentGrid(3, 7, 10), 1.0, 0.09, KernelConfig(query_tokens=64)
    inputs = synthetic_inputs(grid, 1, 64, text=(2, 3))
    before = inputs.text_before
    q, k, v = (x.to(device) for x in (inputs.query, inputs.key, inputs.value))
    out, executed = triton_ripple_attention(q, k, v, grid, budget, scale, before, config)
    q, k, v = (x[0, :, 0] for x in (inputs.query, inputs.key, inputs.value))
    query_tiles = reference_query_tiles(grid, config.query_tokens, before)
    treatment = reference_objective(q, k, v, grid, budget, scale, before, query_tiles).argmin(0)
    expected = reference_attention(q, k, v, grid, treatment, scale, before, query_tiles)
    error = float((out[0, :, 0].cpu().double() - expected).norm() / expected.norm())
    # A NaN is not small either.
    if executed.dense_heads or not error < 1e-3:
        raise WrongOutput(
            f"the kernels differ from the reference by {error:.2g}, so nothing was timed; "
            f"please report this with the name of your GPU, {device_name(device)}"
        )


def smooth_inputs(size: VideoSize, dtype: torch.dtype, device: torch.device) -> AttentionInputs:
    """The synthetic field at a size."""
    return synthetic_inputs(size.grid, size.heads, size.head_dim, device=str(device), dtype=dtype, text=size.text)


def _white_noise(size: VideoSize, dtype: torch.dtype, device: torch.device) -> AttentionInputs:
    shape = (1, size.tokens, size.heads, size.head_dim)
    query, key, value = (torch.randn(shape, dtype=dtype, device=device) for _ in range(3))
    return AttentionInputs(query, key, value, size.grid, size.text[0])


def run_ours(inputs: AttentionInputs, budget: float, config: KernelConfig | None = None) -> tuple[Tensor, float]:
    """The output, and savings of all attention FLOPs."""
    q, k, v = inputs.query, inputs.key, inputs.value
    out, executed = triton_ripple_attention(q, k, v, inputs.grid, budget, None, inputs.text_before, config)
    return out, executed.savings


def budget_for(inputs: AttentionInputs, wanted: float) -> float:
    """The smallest budget found by bisection that saves at least the wanted share."""
    return budget_that_saves(wanted, lambda budget: run_ours(inputs, budget)[1], _LARGEST_BUDGET)


def _measure(name: str, kind: str, inputs: AttentionInputs, budget: float, repeats: int) -> GpuAttentionRow:
    device, (_, tokens, heads, head_dim) = inputs.query.device, inputs.query.shape
    dense = dense_kernels(inputs)
    if not dense:
        raise RuntimeError(f"{name}: none of torch's attention kernels takes these inputs on this device")
    out, savings = run_ours(inputs, budget)
    exact = next(iter(dense.values()))()
    difference = relative_difference(out, exact)
    # The budget bounds an estimate; twice that is no estimate's fault.
    if not difference <= 2 * max(budget, _ROUNDING):
        raise WrongOutput(
            f"{name}: the output is off by {difference:.2g} at a budget of {budget:.2g}; please report it"
        )
    del out, exact

    def decide() -> None:
        decide_only(inputs.query, inputs.key, inputs.value, inputs.grid, budget, inputs.text_before)

    *dense_ms, ours_ms, deciding_ms = interleaved(
        [*dense.values(), lambda: run_ours(inputs, budget), decide], repeats, device
    )
    by_name = dict(zip(dense, dense_ms, strict=True))
    fastest = min(by_name, key=lambda kernel: by_name[kernel].median)
    return GpuAttentionRow(
        size=name,
        inputs=kind,
        tokens=tokens,
        heads=heads,
        head_dim=head_dim,
        dtype=str(inputs.query.dtype).removeprefix("torch."),
        config=vars(kernel_config(device, head_dim, tokens)),
        budget=budget,
        savings=savings,
        relative_error=difference,
        dense=by_name,
        fastest_dense=fastest,
        ours=ours_ms,
        deciding=deciding_ms,
        speed_up=by_name[fastest].median / ours_ms.median,
        deciding_share=deciding_ms.median / by_name[fastest].median,
        dense_peak_bytes=peak_bytes(dense[fastest], device),
        ours_peak_bytes=peak_bytes(lambda: run_ours(inputs, budget), device),
    )


def relative_difference(one: Tensor, other: Tensor) -> float:
    """|one - other| / |other|, head by head, as float32 copies of everything may not fit."""
    pairs = zip(one.unbind(2), other.unbind(2), strict=True)
    squares = [torch.stack([(a.float() - b.float()).square().sum(), b.float().square().sum()]) for a, b in pairs]
    difference, size = torch.stack(squares).sum(0).sqrt().tolist()
    return difference / size


def dense_kernels(inputs: AttentionInputs) -> dict[str, Callable[[], Tensor]]:
    """Every dense kernel that takes these inputs, by name; each gives ``[1, N, H, D]``."""
    kernels: dict[str, Callable[[], Tensor]] = {
        name: functools.partial(_sdpa, inputs, backend) for name, backend in _SDPA.items()
    }
    if inputs.query.device.type == "cuda":
        kernels["flex"] = functools.partial(_flex, inputs)
    return {name: kernel for name, kernel in kernels.items() if _runs(kernel)}


def _sdpa(inputs: AttentionInputs, backend: SDPBackend) -> Tensor:
    with sdpa_kernel(backend):
        return inputs.dense()


def _flex(inputs: AttentionInputs) -> Tensor:
    query, key, value = (x.transpose(1, 2) for x in (inputs.query, inputs.key, inputs.value))
    return _compiled_flex()(query, key, value).transpose(1, 2)


@functools.cache
def _compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _runs(kernel: Callable[[], Tensor]) -> bool:
    try:
        kernel()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        # torch's way of saying that a kernel does not take the call.
        return False
    return True
