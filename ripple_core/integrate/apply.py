"""`apply_timeripple`: puts reuse on a diffusers transformer and takes it off again."""

import functools
import itertools
import logging
from typing import Any

from diffusers.hooks import HookRegistry
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from torch import Tensor, nn

from ripple_core.attention import (
    AttentionCall,
    AttentionMethod,
    LatentGrid,
    SavingsCounter,
    SavingsReport,
    TimeRippleConfig,
    method_of,
)
from ripple_core.integrate.backend import register_backend, unregister_backend
from ripple_core.integrate.families import Family, family_of
from ripple_core.integrate.step import Step, StepContextHook

logger = logging.getLogger(__name__)

_HOOK_NAME = "timeripple_step_context"
_UNKNOWN_STEP = -1
_handle_numbers = itertools.count()


def apply_timeripple(transformer: nn.Module, config: TimeRippleConfig | None = None) -> "TimeRippleHandle":
    """Reuse attention scores in a diffusers video transformer until the handle's `remove()`.

    Only the video self-attention changes. At aggressiveness 0 (or mode "dense") the stock processors stay untouched
    and calls are merely counted.

    The denoising step, on which the thresholds depend, is learned from `transformer.cache_context(name,
    step_index=i, num_inference_steps=n)`, which WanPipeline sets itself. In a hand-written sampling loop either use
    the same context or call `handle.set_step(i, n)` before each step's forward calls. Calls whose step is unknown
    run dense and are reported as fallbacks.

    Args:
        transformer: a transformer of a supported family (WanTransformer3DModel).
        config: the dial; aggressiveness 0.5 by default.

    Returns:
        A handle with `remove()`, `report()` and `set_step()`.

    Raises:
        ValueError: when the class is not supported or TimeRipple is on this transformer already.
    """
    return TimeRippleHandle(transformer, method_of(config or TimeRippleConfig()), family_of(transformer))


def apply_method(transformer: nn.Module, method: AttentionMethod | None) -> "TimeRippleHandle":
    """Like `apply_timeripple`, with any other method in TimeRipple's place; None merely counts what runs."""
    return TimeRippleHandle(transformer, method, family_of(transformer))


class TimeRippleHandle:
    """A method on one transformer; made by `apply_timeripple`."""

    def __init__(self, transformer: nn.Module, method: AttentionMethod | None, family: Family) -> None:
        context_module = family.context_module(transformer)
        registry = HookRegistry.check_if_exists_or_initialize(context_module)
        if registry.get_hook(_HOOK_NAME) is not None:
            raise ValueError("TimeRipple is on this transformer already; call remove() on its handle first")
        self._method = method
        self._family = family
        self._counter = SavingsCounter(method.name, method.aggressiveness) if method else SavingsCounter("dense", 0.0)
        self._grid: LatentGrid | None = None
        self._step_by_hand: Step | None = None
        self._layers: list[_Layer] = []

        self._context_hook = StepContextHook()
        self._context_registry = registry
        registry.register_hook(self._context_hook, _HOOK_NAME)
        self._root_registry = HookRegistry.check_if_exists_or_initialize(transformer)
        self._root_registry.invalidate_child_registries_cache()
        self._forward_hooks = [transformer.register_forward_pre_hook(self._before_forward, with_kwargs=True)]
        number = next(_handle_numbers)
        for index, attention in enumerate(family.self_attention(transformer)):
            if method is None:
                hook = functools.partial(self._count_dense_call, index)
                self._forward_hooks.append(attention.register_forward_pre_hook(hook))
            else:
                self._layers.append(_Layer(self, index, attention.processor, f"timeripple_{number}_{index}"))

    def set_step(self, step: int, num_steps: int) -> None:
        """Say which denoising step the next forward calls belong to, in a hand-written loop.

        Args:
            step: 0..num_steps - 1.
            num_steps: denoising steps of the whole video.

        Raises:
            ValueError: when step is out of range.
        """
        if not 0 <= step < num_steps:
            raise ValueError(f"step is {step}; it must lie in 0..{num_steps - 1}")
        self._step_by_hand = Step(step, num_steps)

    def report(self) -> SavingsReport:
        """What ran since `apply_timeripple`, by denoising step and by layer."""
        return self._counter.report()

    def remove(self) -> None:
        """Put the stock attention back; the report stays readable. A second call does nothing."""
        for layer in self._layers:
            layer.remove()
        self._layers.clear()
        for hook in self._forward_hooks:
            hook.remove()
        self._context_registry.remove_hook(_HOOK_NAME, recurse=False)
        self._root_registry.invalidate_child_registries_cache()

    def _before_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden_states = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        self._grid = self._family.grid(module, hidden_states)

    def _count_dense_call(self, layer: int, attention: Any, args: tuple[Any, ...]) -> None:
        """Before a call of an untouched attention module; its first argument is ``[batch, tokens, channels]``."""
        batch, tokens, _ = args[0].shape
        step = self._step()
        shape = (batch, tokens, attention.heads, attention.inner_dim // attention.heads)
        self._counter.record(step.index if step else _UNKNOWN_STEP, layer, shape)

    def _step(self) -> Step | None:
        return self._context_hook.current() or self._step_by_hand

    def _attend(self, layer: "_Layer", query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """One self-attention call; query, key and value are ``[batch, tokens, heads, head_dim]`` after RoPE."""
        step = self._step()
        reason = self._fallback_reason(step, query, key, options)
        if reason:
            self._fall_back(reason)
        elif step and self._grid and self._method:
            call = AttentionCall(self._grid, layer.index, step.index, step.total, options.get("scale"))
            result = self._method.attend(query, key, value, call)
            if result is not None:
                self._counter.record(step.index, layer.index, query.shape, result[1])
                return result[0]
        self._counter.record(step.index if step else _UNKNOWN_STEP, layer.index, query.shape)
        return layer.stock_attention(query, key, value, **options)

    def _fallback_reason(self, step: Step | None, query: Tensor, key: Tensor, options: dict[str, Any]) -> str | None:
        if step is None:
            return "unknown_denoising_step"
        if options.get("attn_mask") is not None or options.get("is_causal"):
            return "attention_mask"
        if self._grid is None or not query.shape[1] == key.shape[1] == self._grid.num_tokens:
            return "tokens_off_grid"
        return None

    def _fall_back(self, reason: str) -> None:
        if reason not in self._counter.fallbacks:
            logger.warning("TimeRipple runs dense: %s (said once; the report counts the calls)", reason)
        self._counter.record_fallback(reason)


class _Layer:
    """Our backend on one attention module's processor."""

    def __init__(self, handle: TimeRippleHandle, index: int, processor: Any, name: str) -> None:
        self.index = index
        self._processor = processor
        self._stock_backend: AttentionBackendName | None = processor._attention_backend

        # Named arguments: the dispatcher hands over only those it finds in the signature.
        def attend(
            query: Tensor,
            key: Tensor,
            value: Tensor,
            attn_mask: Tensor | None = None,
            dropout_p: float = 0.0,
            is_causal: bool = False,
            scale: float | None = None,
            enable_gqa: bool = False,
            _parallel_config: Any = None,
        ) -> Tensor:
            return handle._attend(
                self,
                query,
                key,
                value,
                attn_mask=attn_mask,
                dropout_p=dropout_p,
                is_causal=is_causal,
                scale=scale,
                enable_gqa=enable_gqa,
                parallel_config=_parallel_config,
            )

        self._backend = register_backend(name, attend)
        processor._attention_backend = self._backend

    def stock_attention(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """What the processor would have called without us."""
        return dispatch_attention_fn(query, key, value, backend=self._stock_backend, **options)

    def remove(self) -> None:
        """Give the processor its backend back."""
        self._processor._attention_backend = self._stock_backend
        unregister_backend(self._backend)
