"""Finds the fastest configuration of the attention kernel on a GPU, for the table that requests read."""

import functools
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources, PTXASError

from ripple_core.attention.kernels.config import KernelConfig
from ripple_core.bench.attention_inputs import AttentionInputs
from ripple_core.bench.gpu_attention import (
    WrongOutput,
    budget_for,
    check_kernels,
    relative_difference,
    run_ours,
    smooth_inputs,
)
from ripple_core.bench.timing import interleaved, this_machine
from ripple_core.bench.video_sizes import VideoSize

CANDIDATES = tuple(itertools.starmap(KernelConfig, itertools.product((64, 128), (64, 128), (4, 8), (2, 3, 4))))

# Relative difference between outputs that the order of sums may cause.
_ROUNDING = 0.02


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
) -> Iterator[dict[str, Any]]:
    """An entry of the table for each size, as soon as it is known.

    Args:
        on_candidate: hears milliseconds, None where a candidate does not run or gives something else than others.

    Raises:
        WrongOutput: when the kernels fail their check, or no candidate runs.
    """
    check_kernels(device)
    for name, size in run.sizes.items():
        inputs = smooth_inputs(size, run.dtype, device)
        candidates = _Candidates(inputs, budget_for(inputs, run.savings), run.repeats)
        for config in run.candidates:
            on_candidate(name, config, candidates.measure(config))
        yield _entry(size, candidates, device)


@dataclass
class _Candidates:
    """Milliseconds and savings of every configuration that runs and agrees with the first of as many query tokens."""

    inputs: AttentionInputs
    budget: float
    repeats: int
    measured: dict[KernelConfig, tuple[float, float]] = field(default_factory=dict)
    _expected: dict[int, Tensor] = field(default_factory=dict)

    def measure(self, config: KernelConfig) -> float | None:
        # Some ask for more shared memory than this GPU has, some the assembler refuses.
        try:
            out, savings = run_ours(self.inputs, self.budget, config)
        except (OutOfResources, PTXASError):
            return None
        expected = self._expected.setdefault(config.query_tokens, out)
        if not relative_difference(out, expected) <= _ROUNDING:
            return None
        call = functools.partial(run_ours, self.inputs, self.budget, config)
        (taken,) = interleaved([call], self.repeats, self.inputs.query.device)
        self.measured[config] = (taken.median, savings)
        return taken.median


def _entry(size: VideoSize, candidates: _Candidates, device: torch.device) -> dict[str, Any]:
    if not candidates.measured:
        raise WrongOutput(f"no configuration runs on {device}; please report this")
    best, (ms, savings) = min(candidates.measured.items(), key=lambda item: item[1])
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
