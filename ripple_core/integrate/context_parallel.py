"""Ulysses context parallelism: every rank gets all tokens of some heads, which suits any method as it is."""

from collections.abc import Callable
from typing import Any

from diffusers.models.attention_dispatch import _templated_context_parallel_attention
from torch import Tensor

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
