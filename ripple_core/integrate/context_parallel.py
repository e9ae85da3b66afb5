"""Ulysses context parallelism: every rank gets all tokens of some heads, which suits any method as it is."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, ParallelConfig
from diffusers.hooks import HookRegistry
from diffusers.hooks.context_parallel import ContextParallelGatherHook, apply_context_parallel
from diffusers.models._modeling_parallel import ContextParallelOutput, gather_size_by_comm
from diffusers.models.attention_dispatch import _templated_context_parallel_attention
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from ripple_core.attention import FlopCount, SavingsReport

Attend = Callable[[Tensor, Tensor, Tensor, Any], Tensor]


def ulysses_attention(
    attend: Attend, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, parallel_config: Any
) -> Tensor:
    """Exchange tokens for heads, attend, exchange back.

    Args:
        attend: takes query, key, value ``[batch, all tokens, this rank's heads, head_dim]`` and the mask.
        query: ``[batch, this rank's tokens, heads, head_dim]``.
        key: the same shape.
        value: the same shape.
        attn_mask: of all tokens or of this rank's.
        parallel_config: diffusers' ParallelConfig with context parallelism.

    Raises:
        ValueError: for ring attention, whose ranks never see all tokens.
    """
    context = parallel_config.context_parallel_config
    if context.ring_degree > 1:
        raise ValueError("TimeRipple does not work with ring attention; use ContextParallelConfig(ulysses_degree=...)")

    def forward_op(_context: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *_: Any, **__: Any) -> Tensor:
        return attend(q, k, v, mask)

    return _templated_context_parallel_attention(
        query, key, value, attn_mask, forward_op=forward_op, backward_op=None, _parallel_config=parallel_config
    )


def connect(config: ParallelConfig, device: torch.device) -> None:
    """Tell a configuration of the process group, which torch.distributed must have; again after each new one.

    Args:
        config: with as many Ulysses ranks as there are processes.
        device: of this process.
    """
    context = config.context_parallel_config
    mesh = init_device_mesh(device.type, mesh_shape=context.mesh_shape, mesh_dim_names=context.mesh_dim_names)
    config.setup(dist.get_rank(), dist.get_world_size(), device, mesh=mesh)


def split_over_ranks(transformer: Any, config: ParallelConfig) -> None:
    """What diffusers' `enable_parallelism` does, which does not work without an accelerator.

    Args:
        transformer: of a class with a plan of context parallelism.
        config: connected.
    """
    for module in transformer.modules():
        if hasattr(getattr(module, "processor", None), "_parallel_config"):
            module.processor._parallel_config = config
    context, plan = config.context_parallel_config, transformer._cp_plan
    outputs = {name: of_module for name, of_module in plan.items() if isinstance(of_module, ContextParallelOutput)}
    inputs = {name: of_module for name, of_module in plan.items() if name not in outputs}
    apply_context_parallel(transformer, context, inputs)
    for name, output in outputs.items():
        registry = HookRegistry.check_if_exists_or_initialize(transformer.get_submodule(name))
        registry.register_hook(_GatherTokens([output], context), f"timeripple_gather_{name}")


class _GatherTokens(ContextParallelGatherHook):
    """Also where ranks have different numbers of tokens, which diffusers' own way needs NCCL for."""

    def post_forward(self, module: Any, output: Any) -> Any:
        if not self.parallel_config.ulysses_anything:
            return super().post_forward(module, output)
        group, dim = self.parallel_config._flattened_mesh.get_group(), self.metadata[0].gather_dim
        counts = gather_size_by_comm(output.shape[dim], group)
        shape = list(output.shape)
        shape[dim] = max(counts)
        padded = output.new_zeros(shape)
        padded.narrow(dim, 0, output.shape[dim]).copy_(output)
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, group=group)
        return torch.cat([part.narrow(dim, 0, count) for part, count in zip(parts, counts, strict=True)], dim)


def ulysses_config(ranks: int) -> ParallelConfig:
    """For `connect` and `split_over_ranks`."""
    return ParallelConfig(context_parallel_config=ContextParallelConfig(ulysses_degree=ranks))


def merge_ranks(reports: Sequence[SavingsReport]) -> SavingsReport:
    """What all ranks did together, each having counted its heads of the same calls.

    Args:
        reports: in the order of the ranks.

    Returns:
        FLOPs and heads of all; calls, and fallbacks, which are of calls, are not counted again for each rank.
    """
    first = reports[0]
    fallbacks = reduce(lambda one, other: one | other, (Counter(report.fallbacks) for report in reports))
    return replace(
        first,
        total=_add(report.total for report in reports),
        scores=_add(report.scores for report in reports),
        by_step={
            step: _add(report.by_step[step] for report in reports if step in report.by_step)
            for step in sorted({step for report in reports for step in report.by_step})
        },
        by_layer={layer: _add(report.by_layer[layer] for report in reports) for layer in first.by_layer},
        by_layer_and_head={
            layer: tuple(head for report in reports for head in report.by_layer_and_head[layer])
            for layer in first.by_layer_and_head
        },
        # Dense where no rank reused anything.
        dense_steps=tuple(step for step in first.dense_steps if all(step in report.dense_steps for report in reports)),
        fallbacks=dict(fallbacks),
        dense_heads=dict(sum((Counter(report.dense_heads) for report in reports), Counter())),
        skipped_flops=sum(report.skipped_flops for report in reports),
        backend=next((report.backend for report in reports if report.backend), None),
    )


def _add(counts: Iterable[FlopCount]) -> FlopCount:
    pairs = [(count.dense_flops, count.executed_flops) for count in counts]
    return FlopCount(sum(dense for dense, _ in pairs), sum(executed for _, executed in pairs))
