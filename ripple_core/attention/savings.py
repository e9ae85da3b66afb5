"""Counts what ran: FLOPs of video self-attention by denoising step and layer.

A call of dense attention takes 2 N^2 D FLOPs per head for QK^T and as many for PV (a multiply-add is two; softmax,
projections and cross-attention are not counted). Reuse lowers the first half. Dense steps and fallbacks count in
full.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class FlopCount:
    """FLOPs of dense attention, and what was left after reuse."""

    dense_flops: int
    executed_flops: int

    @property
    def savings(self) -> float:
        """Share of the FLOPs that reuse removed, 0..1."""
        return 1 - self.executed_flops / self.dense_flops if self.dense_flops else 0.0


@dataclass(frozen=True)
class SavingsReport:
    """Everything counted since `apply_timeripple`; text for people through `str()`."""

    mode: str
    aggressiveness: float
    total: FlopCount
    by_step: dict[int, FlopCount]
    by_layer: dict[int, FlopCount]
    dense_steps: tuple[int, ...]
    fallbacks: dict[str, int]

    @property
    def savings(self) -> float:
        """Share of all attention FLOPs (QK^T and PV, dense steps included) that reuse removed."""
        return self.total.savings

    @property
    def score_savings(self) -> float:
        """The same for QK^T alone, averaged over heads, layers and steps; it is half of all attention FLOPs."""
        return 2 * self.total.savings

    def __str__(self) -> str:
        return (
            f"{self.mode} at aggressiveness {self.aggressiveness:g}: {self.savings:.1%} of attention FLOPs saved "
            f"({self.score_savings:.1%} of the score product), {len(self.dense_steps)} dense steps of "
            f"{len(self.by_step)}, {sum(self.fallbacks.values())} fallbacks"
        )


@dataclass
class _Cell:
    """Sums of one (step, layer)."""

    dense_flops: int = 0
    # A tensor once something was reused: reading it waits for the device, so that is left to the report.
    saved_flops: Tensor | float = 0.0


@dataclass
class SavingsCounter:
    """Collects the calls of one or more videos."""

    mode: str
    aggressiveness: float
    _cells: dict[tuple[int, int], _Cell] = field(default_factory=dict)
    _reusing_steps: set[int] = field(default_factory=set)
    fallbacks: Counter[str] = field(default_factory=Counter)

    def record(self, step: int, layer: int, shape_BNHD: Iterable[int], savings_H: Tensor | None = None) -> None:
        """Count one attention call.

        Args:
            step: denoising step, -1 when unknown.
            layer: index of the self-attention layer.
            shape_BNHD: shape of the query.
            savings_H: score savings of each head, None for a dense call.
        """
        batch, tokens, heads, head_dim = shape_BNHD
        score_flops = 2 * batch * heads * tokens * tokens * head_dim
        cell = self._cells.setdefault((step, layer), _Cell())
        cell.dense_flops += 2 * score_flops
        if savings_H is not None:
            self._reusing_steps.add(step)
            cell.saved_flops = cell.saved_flops + savings_H.double().mean() * score_flops

    def record_fallback(self, reason: str) -> None:
        """Count one call that ran dense although it should have reused."""
        self.fallbacks[reason] += 1

    def report(self) -> SavingsReport:
        """Sum up; waits for the device."""
        counts = {
            key: FlopCount(cell.dense_flops, cell.dense_flops - round(float(cell.saved_flops)))
            for key, cell in self._cells.items()
        }
        steps = sorted({step for step, _ in counts})
        layers = sorted({layer for _, layer in counts})
        return SavingsReport(
            mode=self.mode,
            aggressiveness=self.aggressiveness,
            total=_sum(counts.values()),
            by_step={step: _sum(count for key, count in counts.items() if key[0] == step) for step in steps},
            by_layer={layer: _sum(count for key, count in counts.items() if key[1] == layer) for layer in layers},
            dense_steps=tuple(step for step in steps if step not in self._reusing_steps),
            fallbacks=dict(self.fallbacks),
        )


def _sum(counts: Iterable[FlopCount]) -> FlopCount:
    pairs = [(count.dense_flops, count.executed_flops) for count in counts]
    return FlopCount(sum(dense for dense, _ in pairs), sum(executed for _, executed in pairs))
