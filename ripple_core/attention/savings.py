"""Counts what ran: FLOPs of video self-attention by denoising step, layer and head.

A call of dense attention over N queries and M keys takes 2 N M D FLOPs per head for QK^T and as many for PV (a
multiply-add is two; softmax, projections and cross-attention are not counted). Padded text that a mask takes out of
the keys is in nobody's count. Dense steps and fallbacks count in full.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Backend = Literal["torch", "triton"]


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
class Executed:
    """Share of a call's dense FLOPs that were executed, for each head of each batch item.

    Attributes:
        scores_BH: of QK^T and everything done to decide, ``[batch, heads]``.
        values_BH: of PV, ``[batch, heads]``.
        dense_heads_B: how many heads of each item ran dense all the same, by reason; empty where none did.
        backend: what computed it.
    """

    scores_BH: Tensor
    values_BH: Tensor
    dense_heads_B: Sequence[Mapping[str, int]] = ()
    backend: Backend = "torch"

    @property
    def scores_H(self) -> Tensor:  # noqa: N802, as tensors are
        """Mean over the batch ``[heads]``."""
        return self.scores_BH.mean(0)

    @property
    def values_H(self) -> Tensor:  # noqa: N802, as tensors are
        """Mean over the batch ``[heads]``."""
        return self.values_BH.mean(0)

    @property
    def dense_heads(self) -> Mapping[str, int]:
        """Of all items."""
        return sum(map(Counter, self.dense_heads_B), Counter[str]())

    @property
    def savings(self) -> float:
        """Share of all attention FLOPs of the call that was not executed; below 0 where deciding bought nothing."""
        return 1 - float((self.scores_BH + self.values_BH).mean()) / 2


@dataclass(frozen=True)
class SavingsReport:
    """Everything counted since the handle was made; text for people through `str()`.

    Attributes:
        total: all attention FLOPs.
        scores: those of QK^T alone.
        by_step: all attention FLOPs by denoising step (-1: unknown).
        by_layer: by self-attention layer.
        by_layer_and_head: savings, 0..1, of each head of each layer.
        calls: attention calls that ran.
        tokens: of a call (the largest, if they differ).
        dense_steps: steps without any reuse.
        fallbacks: calls that ran dense although they should have reused, by reason.
        dense_heads: single heads that ran dense in calls that reused, by reason; `little_to_save` is a head's own
            choice, not a failure.
        skipped_flops: dense FLOPs of calls that a step cache such as FirstBlockCache left out; not part of `total`.
        backend: what computed the calls that reused; None where none did.
    """

    mode: str
    aggressiveness: float
    total: FlopCount
    scores: FlopCount
    by_step: dict[int, FlopCount]
    by_layer: dict[int, FlopCount]
    by_layer_and_head: dict[int, tuple[float, ...]]
    calls: int
    tokens: int
    dense_steps: tuple[int, ...]
    fallbacks: dict[str, int]
    dense_heads: dict[str, int] = field(default_factory=dict)
    skipped_flops: int = 0
    backend: Backend | None = None

    @property
    def savings(self) -> float:
        """Share of all attention FLOPs (QK^T and PV, dense steps included) that reuse removed."""
        return self.total.savings

    @property
    def savings_with_step_cache(self) -> float:
        """Share of all attention FLOPs of the stock pipeline removed by reuse and by a step cache together."""
        return FlopCount(self.total.dense_flops + self.skipped_flops, self.total.executed_flops).savings

    @property
    def score_savings(self) -> float:
        """The same for QK^T alone, averaged over heads, layers and steps; it is half of all attention FLOPs."""
        return self.scores.savings

    def __str__(self) -> str:
        return (
            f"{self.mode} at aggressiveness {self.aggressiveness:g}: {self.savings:.1%} of attention FLOPs saved "
            f"({self.score_savings:.1%} of the score product), {len(self.dense_steps)} dense steps of "
            f"{len(self.by_step)}, {sum(self.fallbacks.values())} fallbacks"
        )

    def _repr_html_(self) -> str:
        from ripple_core import notebook

        attention = notebook.attention(
            savings=self.savings,
            score_savings=self.score_savings,
            mode=self.mode,
            aggressiveness=self.aggressiveness,
            backend=self.backend,
            dense_steps=self.dense_steps,
            fallbacks=self.fallbacks,
            by_step={step: count.savings for step, count in self.by_step.items()},
            by_layer={layer: count.savings for layer, count in self.by_layer.items()},
        )
        if not self.skipped_flops:
            return notebook.page(notebook.paragraph(notebook.outcome(self.savings)), attention)
        together = f"Together with the step cache: {notebook.outcome(self.savings_with_step_cache)}"
        return notebook.page(
            notebook.paragraph(notebook.outcome(self.savings)), notebook.paragraph(together), attention
        )


@dataclass
class _Cell:
    """Sums of one (step, layer, item). Saved FLOPs stay on the device: reading them waits, so the report does it."""

    heads: int
    dense_flops: int = 0
    calls: int = 0
    saved_scores_H: Tensor | None = None
    saved_values_H: Tensor | None = None

    def add_saved(self, executed: Executed, place: int, score_flops_per_head: int) -> None:
        scores_H = (1 - executed.scores_BH[place].double()) * score_flops_per_head
        values_H = (1 - executed.values_BH[place].double()) * score_flops_per_head
        self.saved_scores_H = scores_H if self.saved_scores_H is None else self.saved_scores_H + scores_H
        self.saved_values_H = values_H if self.saved_values_H is None else self.saved_values_H + values_H


@dataclass(frozen=True)
class _Sums:
    """A cell on the CPU: saved FLOPs ``[heads]``."""

    dense_flops: int
    scores_H: Tensor
    values_H: Tensor

    def count(self) -> FlopCount:
        return FlopCount(self.dense_flops, self.dense_flops - round(float((self.scores_H + self.values_H).sum())))

    def score_count(self) -> FlopCount:
        half = self.dense_flops // 2
        return FlopCount(half, half - round(float(self.scores_H.sum())))

    def savings_by_head(self) -> tuple[float, ...]:
        saved_H = self.scores_H + self.values_H
        return tuple((saved_H * len(saved_H) / self.dense_flops).tolist())


@dataclass
class SavingsCounter:
    """Collects the calls of one or more videos, each item of a batch on its own."""

    mode: str
    aggressiveness: float
    _cells: dict[tuple[int, int, int], _Cell] = field(default_factory=dict)
    fallbacks: Counter[str] = field(default_factory=Counter)
    _dense_heads: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    _backends: dict[int, Backend] = field(default_factory=dict)
    _calls: int = 0
    _tokens: int = 0
    _skipped_flops: int = 0
    # Which item of the first calls each place in a batch stands for, once some have been left out.
    _item_of_place: list[int] | None = None

    def record(
        self,
        step: int,
        layer: int,
        shape_BNHD: Iterable[int],
        executed: Executed | None = None,
        num_keys: int | None = None,
        first_place: int = 0,
    ) -> int:
        """Count one attention call.

        Args:
            step: denoising step, -1 when unknown.
            layer: index of the self-attention layer.
            shape_BNHD: shape of the query.
            executed: what ran of it, None for a dense call.
            num_keys: as many as queries by default.
            first_place: place in the batch of this call's first item, for a call on a part of it.

        Returns:
            The FLOPs of dense attention for this call.
        """
        batch, tokens, heads, head_dim = shape_BNHD
        score_flops_per_head = 2 * tokens * (tokens if num_keys is None else num_keys) * head_dim
        dense_flops = 2 * score_flops_per_head * heads
        self._calls += 1
        self._tokens = max(self._tokens, tokens)
        for place in range(batch):
            item = self._item(first_place + place)
            cell = self._cells.setdefault((step, layer, item), _Cell(heads))
            cell.dense_flops += dense_flops
            cell.calls += 1
            if executed is not None:
                cell.add_saved(executed, place, score_flops_per_head)
                self._note_heads(item, heads, executed.dense_heads_B[place] if executed.dense_heads_B else {}, executed)
        return batch * dense_flops

    def _item(self, place: int) -> int:
        return place if self._item_of_place is None else self._item_of_place[place]

    def _note_heads(self, item: int, heads: int, dense_heads: Mapping[str, int], executed: Executed) -> None:
        self._dense_heads[item].update(dense_heads)
        if sum(dense_heads.values()) < heads:
            self._backends[item] = executed.backend

    def keep_places(self, places: Sequence[int]) -> None:
        """From now on calls hold no more than these of the places that they have held so far, in this order."""
        self._item_of_place = [self._item(place) for place in places]

    def record_skipped(self, dense_flops: int) -> None:
        """Count attention that a step cache left out."""
        self._skipped_flops += dense_flops

    def record_fallback(self, reason: str) -> None:
        """Count one call that ran dense although it should have reused."""
        self.fallbacks[reason] += 1

    def report(self, item: int | None = None) -> SavingsReport:
        """Sum up; waits for the device.

        Args:
            item: of the batch, by its place in the first calls; all by default. Fallbacks are those of whole calls,
                and what a step cache left out is in the report of all items alone.
        """
        cells = {key: cell for key, cell in self._cells.items() if item in (None, key[2])}
        sums = {key: _read(cell) for key, cell in cells.items()}
        reusing = {key[0] for key, cell in cells.items() if cell.saved_scores_H is not None}
        steps = sorted({step for step, _, _ in sums})
        layers = sorted({layer for _, layer, _ in sums})
        of_step = {step: [part for key, part in sums.items() if key[0] == step] for step in steps}
        of_layer = {layer: [part for key, part in sums.items() if key[1] == layer] for layer in layers}
        items = sorted({key[2] for key in cells})
        return SavingsReport(
            mode=self.mode,
            aggressiveness=self.aggressiveness,
            total=_add(part.count() for part in sums.values()),
            scores=_add(part.score_count() for part in sums.values()),
            by_step={step: _add(part.count() for part in parts) for step, parts in of_step.items()},
            by_layer={layer: _add(part.count() for part in parts) for layer, parts in of_layer.items()},
            by_layer_and_head={layer: _merge(parts).savings_by_head() for layer, parts in of_layer.items()},
            calls=self._calls if item is None else sum(cell.calls for cell in cells.values()),
            tokens=self._tokens,
            dense_steps=tuple(step for step in steps if step not in reusing),
            fallbacks=dict(self.fallbacks),
            dense_heads=dict(sum((self._dense_heads[of] for of in items), Counter[str]())),
            skipped_flops=self._skipped_flops if item is None else 0,
            backend=next((self._backends[of] for of in items if of in self._backends), None),
        )


def _read(cell: _Cell) -> _Sums:
    if cell.saved_scores_H is None or cell.saved_values_H is None:
        nothing = torch.zeros(cell.heads, dtype=torch.double)
        return _Sums(cell.dense_flops, nothing, nothing)
    return _Sums(cell.dense_flops, cell.saved_scores_H.cpu(), cell.saved_values_H.cpu())


def _merge(parts: list[_Sums]) -> _Sums:
    scores_H = torch.stack([part.scores_H for part in parts]).sum(0)
    values_H = torch.stack([part.values_H for part in parts]).sum(0)
    return _Sums(sum(part.dense_flops for part in parts), scores_H, values_H)


def _add(counts: Iterable[FlopCount]) -> FlopCount:
    pairs = [(count.dense_flops, count.executed_flops) for count in counts]
    return FlopCount(sum(dense for dense, _ in pairs), sum(executed for _, executed in pairs))
