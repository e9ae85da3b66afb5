"""Draws METHOD.md's pictures: `python -m ripple_core.bench.method_figures [FOLDER]`."""

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor

from ripple_core.attention import ripple_attention
from ripple_core.attention.decide import Decision, decide, summarise_keys, summarise_queries
from ripple_core.attention.tiles import tile_layout
from ripple_core.bench.attention_inputs import AttentionInputs, builtin_calls

_FIGURES = Path(__file__).parent / "figures"
_STEPS = (2, 10, 17)
_SHOWN_BUDGET = 0.3
_BUDGETS = (0.1, 0.2, 0.4, 0.8)
_COLOURS = ("#30123b", "#1ba3a3", "#f3c53a")


def main(folder: Path = _FIGURES) -> None:
    """Write both pictures."""
    calls = builtin_calls(_STEPS)
    draw_treatments(calls).savefig(folder / "treatments.png", dpi=110)
    draw_estimates(calls).savefig(folder / "estimated_error.png", dpi=110)


def draw_treatments(calls: dict[tuple[int, int], AttentionInputs]) -> Figure:
    """Attention mass between tiles, and the treatments, of the head with the most work and of the median one."""
    heads = [(step, layer, head) for (step, layer), inputs in calls.items() for head in range(inputs.query.shape[2])]
    work = {key: _share_exact(_decide(calls[key[:2]], key[2], _SHOWN_BUDGET)) for key in heads if key[0] == _STEPS[1]}
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    rows = [max(work, key=work.__getitem__), sorted(work, key=work.__getitem__)[len(work) // 2]]
    for (mass_axes, treatment_axes, work_axes), (step, layer, head) in zip(figure.subplots(2, 3), rows, strict=True):
        inputs = calls[step, layer]
        decision = _decide(inputs, head, _SHOWN_BUDGET)
        image = mass_axes.imshow(_mass(inputs, head), norm=LogNorm(), cmap="magma")
        figure.colorbar(image, ax=mass_axes)
        mass_axes.set_title(f"attention mass: step {step + 1}, layer {layer + 1}, head {head + 1}", fontsize=9)
        mass_axes.set(xlabel="key tile", ylabel="query tile")
        _show_treatments(treatment_axes, decision)
        _show_work(work_axes, inputs, head)
    return figure


def _show_treatments(axes: Axes, decision: Decision) -> None:
    axes.imshow(decision.treatment, cmap=ListedColormap(_COLOURS), vmin=0, vmax=2, interpolation="nearest")
    axes.set_title(f"at a budget of {_SHOWN_BUDGET:g}: exact (dark), cells, tile (yellow)", fontsize=9)
    axes.set(xlabel="key tile", ylabel="query tile")


def _show_work(axes: Axes, inputs: AttentionInputs, head: int) -> None:
    budgets = np.geomspace(0.02, 2, 12)
    shares = [
        [float((_decide(inputs, head, b).treatment == kind).float().mean()) for b in budgets] for kind in (0, 1, 2)
    ]
    axes.stackplot(budgets, shares, colors=_COLOURS, labels=("exact", "cells", "tile"))
    axes.set(xscale="log", xlabel="error budget", ylabel="share of pairs", ylim=(0, 1), xlim=(0.02, 2))
    axes.legend(loc="lower right", fontsize=8)


def draw_estimates(calls: dict[tuple[int, int], AttentionInputs]) -> Figure:
    """Estimated against real relative error of every head's output, and both against the budget."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for budget in _BUDGETS:
        points = [point for inputs in calls.values() for point in _errors_of_heads(inputs, budget)]
        estimated, real, saved = np.array(points).T
        left.loglog(estimated, real, ".", label=f"budget {budget:g}")
        right.semilogy(100 * saved, real, ".", label=f"budget {budget:g}")
        right.axhline(budget, color=right.lines[-1].get_color(), linewidth=0.6)
    span = left.get_xlim()
    left.plot(span, span, color="black", linewidth=0.6)
    left.set(xlabel="estimated relative error of a head's output", ylabel="real error", title="estimate against truth")
    right.set(xlabel="pairs of tokens saved [%]", ylabel="real error", title="lines: the budgets")
    left.xaxis.set_minor_formatter(NullFormatter())
    for axes in (left, right):
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    return figure


def _errors_of_heads(inputs: AttentionInputs, budget: float) -> list[tuple[float, float, float]]:
    """Estimated error, real error and saved share of pairs, of every head that reuses."""
    out, executed = ripple_attention(inputs.query, inputs.key, inputs.value, inputs.grid, budget)
    exact = inputs.dense()
    points = []
    for head in range(out.shape[2]):
        saved = 1 - float(executed.values_H[head])
        if saved > 0:
            estimated = float(_decide(inputs, head, budget).error.square().mean().sqrt())
            error = (out[0, :, head] - exact[0, :, head]).norm() / exact[0, :, head].norm()
            points.append((estimated, float(error), saved))
    return points


def _decide(inputs: AttentionInputs, head: int, budget: float) -> Decision:
    layout = tile_layout(inputs.grid, 1, inputs.query.device)
    query, key, value = (x[0, layout.order, head] for x in (inputs.query, inputs.key, inputs.value))
    keys = summarise_keys(key, value, layout)
    return decide(summarise_queries(query, layout), key[:0], keys, layout, query.shape[1] ** -0.5, budget)


def _share_exact(decision: Decision) -> float:
    return float((decision.treatment == 0).float().mean())


def _mass(inputs: AttentionInputs, head: int) -> Tensor:
    """True attention mass between tiles."""
    layout = tile_layout(inputs.grid, 1, inputs.query.device)
    query, key = (x[0, layout.order, head] for x in (inputs.query, inputs.key))
    weights = (query @ key.T * query.shape[1] ** -0.5).softmax(-1)
    return layout.tiles.mean(layout.tiles.sum(weights.T).T.contiguous())


if __name__ == "__main__":
    with torch.no_grad():
        main(*map(Path, sys.argv[1:]))
