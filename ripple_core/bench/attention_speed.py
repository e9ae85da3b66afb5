"""Times attention alone, on a CPU: mode `ripple` against torch's own, on the same inputs in the same run."""

import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.multiprocessing
from matplotlib.figure import Figure
from pydantic import BaseModel
from torch import Tensor

from ripple_core.attention import Executed, ripple_attention
from ripple_core.bench.attention_inputs import AttentionInputs, Source, make_inputs
from ripple_core.bench.search import budget_that_saves
from ripple_core.bench.timing import interleaved
from ripple_core.generate.load import device_name

_LARGEST_BUDGET = 10.0


class SpeedRow(BaseModel):
    """One setting. Times are medians of whole calls, deciding included; ratio is dense / ours."""

    source: Source
    tokens: int
    heads: int
    head_dim: int
    mode: str
    budget: float
    savings: float
    relative_error: float
    dense_ms: float
    ours_ms: float
    ratio: float
    dense_peak_bytes: int | None
    ours_peak_bytes: int | None


class SpeedReport(BaseModel):
    """Where and on what it was measured."""

    torch_version: str
    device: str
    threads: int
    dtype: str
    rows: list[SpeedRow]


@dataclass(frozen=True)
class SpeedRun:
    """What to time: every combination.

    Args:
        tokens: multiples of 1024.
        head_dims: multiples of 64.
        savings: of the whole attention, 0..1; the budget that gives each is searched for.
        repeats: calls of each kind, taken in turn.
        measure_memory: peak memory of one call of each, in processes of their own (Linux only).
    """

    tokens: Sequence[int] = (8192, 16384)
    heads: int = 8
    head_dims: Sequence[int] = (64, 128)
    savings: Sequence[float] = (0.6, 0.85)
    sources: Sequence[Source] = ("builtin", "synthetic")
    repeats: int = 5
    measure_memory: bool = True


def measure_speed(run: SpeedRun, on_row: Callable[[SpeedRow], None] = lambda _: None) -> SpeedReport:
    """Time every combination; on_row is called with each as it is done.

    Raises:
        InvalidRequest: for a size that the inputs cannot be made in.
    """
    rows = []
    for source, head_dim, tokens in itertools.product(run.sources, run.head_dims, run.tokens):
        inputs = make_inputs(source, tokens, run.heads, head_dim)
        for wanted in run.savings:
            rows.append(_measure(inputs, source, wanted, run))
            on_row(rows[-1])
    return SpeedReport(
        torch_version=torch.__version__,
        device=device_name(torch.device("cpu")),
        threads=torch.get_num_threads(),
        dtype=str(inputs.query.dtype).removeprefix("torch."),
        rows=rows,
    )


@torch.no_grad()
def _measure(inputs: AttentionInputs, source: Source, wanted: float, run: SpeedRun) -> SpeedRow:
    budget = budget_that_saves(wanted, lambda budget: _ours(inputs, budget)[1].savings, _LARGEST_BUDGET)
    out, executed = _ours(inputs, budget)
    exact = inputs.dense()
    calls = [inputs.dense, lambda: _ours(inputs, budget)]
    dense_ms, ours_ms = (taken.median for taken in interleaved(calls, run.repeats, inputs.query.device))
    peaks: tuple[int, int] | tuple[None, None] = (None, None)
    if run.measure_memory and sys.platform == "linux":
        peaks = (_peak_of_a_process(inputs, None), _peak_of_a_process(inputs, budget))
    return SpeedRow(
        source=source,
        tokens=inputs.grid.num_tokens,
        heads=inputs.query.shape[2],
        head_dim=inputs.query.shape[3],
        mode="ripple",
        budget=budget,
        savings=executed.savings,
        relative_error=float((out - exact).norm() / exact.norm()),
        dense_ms=dense_ms,
        ours_ms=ours_ms,
        ratio=dense_ms / ours_ms,
        dense_peak_bytes=peaks[0],
        ours_peak_bytes=peaks[1],
    )


def _ours(inputs: AttentionInputs, budget: float) -> tuple[Tensor, Executed]:
    return ripple_attention(inputs.query, inputs.key, inputs.value, inputs.grid, budget)


def _peak_of_a_process(inputs: AttentionInputs, budget: float | None) -> int:
    """Bytes that a new process holds at most for inputs, output and everything between, in one call."""
    with torch.multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_of_one_call, (inputs, budget))


@torch.no_grad()
def _peak_of_one_call(shared: AttentionInputs, budget: float | None) -> int:
    inputs = AttentionInputs(shared.query.clone(), shared.key.clone(), shared.value.clone(), shared.grid)
    small = make_inputs("synthetic", 1024, 1, inputs.query.shape[3])
    # Kernels set up buffers of their own at the first call.
    small.dense()
    _ours(small, 0.5)
    # Linux: sets the high-water mark back to what is resident now.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status_bytes("VmRSS")
    inputs.dense() if budget is None else _ours(inputs, budget)
    return sum(x.nbytes for x in (inputs.query, inputs.key, inputs.value)) + _status_bytes("VmHWM") - before


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _about(savings: float) -> int:
    """Savings come out a little above what was asked for."""
    return 5 * round(20 * savings)


def plot_speed(report: SpeedReport, path: Path) -> None:
    """Time against tokens, one panel for each head_dim and source."""
    panels = sorted({(row.source, row.head_dim) for row in report.rows})
    figure = Figure(figsize=(4 * len(panels), 4), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        rows = [row for row in report.rows if (row.source, row.head_dim) == panel]
        dense = sorted({row.tokens: row.dense_ms for row in rows}.items())
        axes.plot(*zip(*dense, strict=True), "o-", color="black", label="dense (SDPA)")
        for about in sorted({_about(row.savings) for row in rows}):
            line = sorted((row.tokens, row.ours_ms) for row in rows if _about(row.savings) == about)
            axes.plot(*zip(*line, strict=True), "s--", label=f"ripple, about {about} % saved")
        axes.set(xlabel="tokens", ylabel="ms", title=f"{panel[0]}, head_dim {panel[1]}", xlim=(0, None), ylim=(0, None))
        axes.set_xticks([tokens for tokens, _ in dense])
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)
