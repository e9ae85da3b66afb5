"""Finds the fastest configuration of the attention kernel on a GPU, for the table that requests read."""

import contextlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from triton.runtime.errors import OutOfResources, PTXASError

from ripple_core.attention.kernels.config import KernelConfig
from ripple_core.bench.attention_inputs import synthetic_inputs
from ripple_core.bench.gpu_attention import budget_for, check_kernels, run_ours
from ripple_core.bench.timing import interleaved, this_machine
from ripple_core.bench.video_sizes import VideoSize

CANDIDATES = tuple(itertools.starmap(KernelConfig, itertools.product((64, 128), (64, 128), (4, 8), (2, 3, 4))))


@dataclass(frozen=True)
class TuneRun:
    """What to tune for.

    Args:
        savings: of all attention, at which candidates are compared.
        repeats: timed calls of each candidate.
    """

    sizes: Mapping[str, VideoSize]
    savings: float = 0.85
    repeats: int = 3
    dtype: torch.dtype = torch.bfloat16
    candidates: Sequence[KernelConfig] = CANDIDATES


@torch.no_grad()
def tune(
    run: TuneRun, device: torch.device, on_candidate: Callable[[str, KernelConfig, float | None], None]
) -> list[dict[str, Any]]:
    """An entry of the table for each size; on_candidate hears milliseconds, None where a candidate does not run.

    Raises:
        WrongOutput: when the kernels fail their check.
    """
    check_kernels(device)
    entries = []
    for name, size in run.sizes.items():
        inputs = synthetic_inputs(
            size.grid, size.heads, size.head_dim, device=str(device), dtype=run.dtype, text=size.text
        )
        budget = budget_for(inputs, run.savings)
        times: dict[KernelConfig, float] = {}
        for config in run.candidates:
            call = lambda config=config: run_ours(inputs, budget, config)  # noqa: E731, B023
            # Some ask for more shared memory than this GPU has, some the assembler refuses.
            with contextlib.suppress(OutOfResources, PTXASError):
                times[config] = interleaved([call], run.repeats, device)[0].median
            on_candidate(name, config, times.get(config))
        best = min(times, key=lambda config: times[config])
        entries.append(_entry(size, best, times[best], run.savings, device))
    return entries


def _entry(size: VideoSize, best: KernelConfig, ms: float, savings: float, device: torch.device) -> dict[str, Any]:
    machine = this_machine(device)
    key = {"device": machine.device, "head_dim": size.head_dim, "tokens": size.tokens}
    measured = {"ms": ms, "savings": savings, "triton": machine.triton_version, "date": machine.date}
    return key | {"config": asdict(best)} | measured


def write_table(path: Path, entries: list[dict[str, Any]]) -> None:
    """Put entries into the table; those of the same device, head_dim and tokens are replaced."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    table = {_key(entry): entry for entry in known + entries}
    path.write_text(json.dumps([table[key] for key in sorted(table)], indent=1) + "\n", encoding="utf-8")


def _key(entry: dict[str, Any]) -> tuple[str, int, int]:
    return entry["device"], entry["head_dim"], entry["tokens"]
