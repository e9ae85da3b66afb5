"""Baselines that skip whole blocks in some denoising steps: diffusers' own step caches."""

from typing import Any

from diffusers import FirstBlockCacheConfig, TaylorSeerCacheConfig

from ripple_core.attention import SavingsReport
from ripple_core.integrate import apply_method


class StepCache:
    """One of diffusers' caches on a transformer, with the attention that still runs counted."""

    def __init__(self, transformer: Any, config: Any) -> None:
        self._transformer = transformer
        self._counter = apply_method(transformer, None)
        transformer.enable_cache(config)

    def report(self) -> SavingsReport:
        """The blocks that ran; skipped ones are missing from the dense FLOPs as well."""
        return self._counter.report()

    def remove(self) -> None:
        """Take cache and counter off."""
        self._transformer.disable_cache()
        self._counter.remove()


def first_block_cache(transformer: Any, threshold: float) -> StepCache:
    """FirstBlockCache: skips all blocks but the first while the first one's output changes by less than threshold."""
    return StepCache(transformer, FirstBlockCacheConfig(threshold=threshold))


def taylor_seer(transformer: Any, warm_up: int, interval: int) -> StepCache:
    """TaylorSeer: after warm_up full steps, one full step in interval; the blocks' outputs between extrapolated."""
    config = TaylorSeerCacheConfig(
        cache_interval=interval,
        disable_cache_before_step=warm_up,
        max_order=1,
        taylor_factors_dtype=next(transformer.parameters()).dtype,
        cache_identifiers=[r"blocks\.\d+"],
    )
    return StepCache(transformer, config)


def taylor_seer_full_steps(num_steps: int, warm_up: int, interval: int) -> int:
    """How many of num_steps TaylorSeer computes in full; its first step after the warm-up is an extrapolated one."""
    return sum(step < warm_up or (step - warm_up - 1) % interval == 0 for step in range(num_steps))
