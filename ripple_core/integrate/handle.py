"""The handle of `apply_timeripple`: routes each attention call to the method or to the stock kernel, and counts it."""

import functools
import inspect
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from diffusers.hooks import HookRegistry
from torch import Tensor, nn

from ripple_core.attention import (
    AttentionCall,
    AttentionMethod,
    Executed,
    LatentGrid,
    RunDense,
    SavingsCounter,
    SavingsReport,
)
from ripple_core.integrate.context_parallel import ulysses_attention
from ripple_core.integrate.families import Family
from ripple_core.integrate.masks import valid_key_lengths
from ripple_core.integrate.processors import Site, is_changed
from ripple_core.integrate.step import SchedulerSteps, Step, StepContextHook

logger = logging.getLogger(__name__)

_HOOK_NAME = "timeripple_step_context"
_UNKNOWN_STEP = -1


class TimeRippleHandle:
    """A method on the transformers of one pipeline, or on one transformer; made by `apply_timeripple`."""

    def __init__(
        self, transformers: list[tuple[nn.Module, Family]], method: AttentionMethod | None, pipe: Any = None
    ) -> None:
        self.method = method
        self.counter = SavingsCounter(method.name, method.aggressiveness) if method else SavingsCounter("dense", 0.0)
        self._scheduler_steps = SchedulerSteps(pipe) if pipe is not None else None
        self._step_by_hand: Step | None = None
        for transformer, family in transformers:
            _check_processors(transformer, family)
        self._transformers: list[_Transformer] = []
        self.num_layers = 0
        for transformer, family in transformers:
            self._transformers.append(_Transformer(self, transformer, family, first_layer=self.num_layers))
            self.num_layers += self._transformers[-1].num_layers

    def set_step(self, step: int, num_steps: int) -> None:
        """Say which denoising step the next forward calls belong to, in a loop that nothing else tells about.

        Args:
            step: 0..num_steps - 1.
            num_steps: denoising steps of the whole video.

        Raises:
            ValueError: when step is out of range.
        """
        if not 0 <= step < num_steps:
            raise ValueError(f"step is {step}; it must lie in 0..{num_steps - 1}")
        self._step_by_hand = Step(step, num_steps)

    def report(self, item: int | None = None) -> SavingsReport:
        """What ran since `apply_timeripple`, by denoising step and by layer (a second transformer's follow).

        Args:
            item: place of one video in the batch that ran; all together by default.
        """
        return self.counter.report(item)

    def keep_places(self, places: Sequence[int]) -> None:
        """Say that of the batch only these places go on, in this order; `report` keeps to the first ones."""
        self.counter.keep_places(places)

    def remove(self) -> None:
        """Put the stock attention back; the report stays readable. A second call does nothing."""
        for transformer in self._transformers:
            transformer.remove()
        self._transformers.clear()

    def step_without_context(self, timestep: Any) -> Step | None:
        """The step by the pipeline's scheduler, else as set by hand."""
        known = self._scheduler_steps.current(timestep) if self._scheduler_steps else None
        return known or self._step_by_hand

    def fall_back(self, reason: str) -> None:
        """Count a call that runs dense although it should reuse."""
        if reason not in self.counter.fallbacks:
            logger.warning("TimeRipple runs dense: %s (said once; the report counts the calls)", reason)
        self.counter.record_fallback(reason)


def _check_processors(transformer: nn.Module, family: Family) -> None:
    ours = [attention.processor for attention in family.self_attention(transformer)]
    if any(is_changed(processor) for processor in ours):
        raise ValueError("TimeRipple is on this transformer already; call remove() on its handle first")
    every = [module.processor for module in transformer.modules() if hasattr(module, "processor")]
    if any(sum(other is processor for other in every) > 1 for processor in ours):
        raise ValueError("attention modules share a processor; give each its own with attention.set_processor(...)")


class _Transformer:
    """A method on one transformer: what the forward call under way is about, and its attention calls."""

    def __init__(self, handle: TimeRippleHandle, transformer: nn.Module, family: Family, first_layer: int) -> None:
        self._handle = handle
        self._family = family
        self._signature = inspect.signature(type(transformer).forward)
        self._grid: LatentGrid | None = None
        self._step: Step | None = None
        self._mask: object = None
        self._lengths_of_mask: list[int] | None = None
        # Dense FLOPs by layer: in this forward call, and in the last one in which every layer ran.
        self._flops: dict[int, int] = {}
        self._complete_flops: dict[int, int] = {}

        # A submodule outside the blocks: accelerate's offloading drops hooks on the transformer after the first call,
        # and hooks on blocks would be compiled with them.
        outside = next(child for child in transformer.children() if not isinstance(child, nn.ModuleList))
        self._context_hook = StepContextHook()
        self._context_registry = HookRegistry.check_if_exists_or_initialize(outside)
        self._context_registry.register_hook(self._context_hook, _HOOK_NAME)
        self._root_registry = HookRegistry.check_if_exists_or_initialize(transformer)
        self._root_registry.invalidate_child_registries_cache()

        before, after = torch.compiler.disable(self._before_forward), torch.compiler.disable(self._after_forward)
        self._forward_hooks = [
            transformer.register_forward_pre_hook(before, with_kwargs=True),
            transformer.register_forward_hook(after),
        ]
        self._sites = [
            Site(attention, family.kernel, functools.partial(self._on_call, index))
            for index, attention in enumerate(family.self_attention(transformer))
        ]
        self.num_layers = len(self._sites)
        self._first_layer = first_layer

    def remove(self) -> None:
        for site in self._sites:
            site.remove()
        for hook in self._forward_hooks:
            hook.remove()
        self._context_registry.remove_hook(_HOOK_NAME, recurse=False)
        self._root_registry.invalidate_child_registries_cache()

    def _before_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = self._signature.bind_partial(module, *args, **kwargs).arguments
        self._grid = self._family.grid(module, arguments)
        self._step = self._context_hook.current() or self._handle.step_without_context(arguments.get("timestep"))
        self._flops = {}

    def _after_forward(self, *_: Any) -> None:
        """Count the layers that a step cache left out, by what they took of the last complete call."""
        self._mask = None
        if len(self._flops) == self.num_layers:
            self._complete_flops = self._flops
            return
        complete = self._complete_flops
        left_out = sum(flops for index, flops in complete.items() if index not in self._flops)
        # This call's text may be longer or shorter.
        same_layers = sum(complete.get(index, 0) for index in self._flops)
        scale = sum(self._flops.values()) / same_layers if same_layers else 1
        self._handle.counter.record_skipped(round(left_out * scale))

    def _on_call(self, index: int, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Tensor:
        """One self-attention call, ``[batch, tokens, heads, head_dim]`` after RoPE."""
        site = self._sites[index]

        def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
            return self._attend(index, q, k, v, options | {"attn_mask": mask})

        mask = options.get("attn_mask")
        if site.parallel_config is None:
            return attend(query, key, value, mask)
        return ulysses_attention(attend, query, key, value, mask, site.parallel_config)

    def _attend(self, index: int, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Tensor:
        """The same with all tokens here."""
        mask, batch = options.get("attn_mask"), query.shape[0]
        lengths = [key.shape[1]] * batch if mask is None else self._lengths(mask, batch)
        if self._handle.method is not None:
            reason = self._fallback_reason(query, key, lengths, options)
            if reason:
                self._handle.fall_back(reason)
            else:
                assert lengths is not None
                out = self._reuse(index, query, key, value, lengths, options.get("scale"))
                if not isinstance(out, RunDense):
                    return out
                if out.reason:
                    self._handle.fall_back(out.reason)
        for items, num_keys in _equal_lengths(lengths or [key.shape[1]] * batch):
            self._record(index, query, items, num_keys)
        return self._sites[index].stock_attention(query, key, value, options)

    def _lengths(self, mask: object, batch: int) -> list[int] | None:
        """Read from the device once where all layers get the same mask."""
        if mask is not self._mask:
            self._mask, self._lengths_of_mask = mask, valid_key_lengths(mask, batch)
        return self._lengths_of_mask

    def _reuse(
        self, index: int, query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scale: float | None
    ) -> Tensor | RunDense:
        """The method's output for items of one length at a time, padded keys cropped."""
        method, grid, step = self._handle.method, self._grid, self._step
        assert method is not None
        assert grid is not None
        assert step is not None
        before = query.shape[1] - grid.num_tokens if self._family.text == "before" else 0
        call = AttentionCall(grid, self._first_layer + index, step.index, step.total, scale, before)
        parts = [
            (items, num_keys, method.attend(query[items], key[items, :num_keys], value[items, :num_keys], call))
            for items, num_keys in _equal_lengths(lengths)
        ]
        results: list[Tensor] = []
        for items, num_keys, result in parts:
            if isinstance(result, RunDense):
                return result
            self._record(index, query, items, num_keys, result[1])
            results.append(result[0])
        return torch.cat(results) if len(results) > 1 else results[0]

    def _fallback_reason(
        self, query: Tensor, key: Tensor, lengths: list[int] | None, options: dict[str, Any]
    ) -> str | None:
        if self._step is None:
            return "unknown_denoising_step"
        if lengths is None or options.get("is_causal"):
            return "attention_mask"
        if query.shape[2] != key.shape[2]:
            return "grouped_heads"
        num_queries, num_keys = query.shape[1], key.shape[1]
        video = self._grid.num_tokens if self._grid else num_queries + 1
        fits = num_queries == video if self._family.text == "none" else num_queries >= video
        if num_queries != num_keys or not fits or (self._family.text == "after" and min(lengths) < video):
            return "tokens_off_grid"
        return None

    def _record(self, index: int, query: Tensor, items: slice, num_keys: int, executed: Executed | None = None) -> None:
        step = self._step.index if self._step else _UNKNOWN_STEP
        counter = self._handle.counter
        layer, shape = self._first_layer + index, query[items].shape
        flops = counter.record(step, layer, shape, executed, num_keys, first_place=items.start or 0)
        # Several calls of a layer in one forward, as with a loop over the batch, add up.
        self._flops[index] = self._flops.get(index, 0) + flops


def _equal_lengths(lengths: list[int]) -> Iterable[tuple[slice, int]]:
    """Batch items to attend together: all, or one by one where their numbers of keys differ."""
    if len(set(lengths)) == 1:
        return [(slice(None), lengths[0])]
    return [(slice(item, item + 1), length) for item, length in enumerate(lengths)]
