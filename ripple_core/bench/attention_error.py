"""Relative error of single attention calls, measured while a video is generated."""

from collections import defaultdict

from torch import Tensor

from ripple_core.attention import AttentionCall, AttentionMethod, Executed, RunDense, dense_attention


class MeasuredMethod:
    """Any method, with dense attention computed beside it on the same input. The video stays the method's own."""

    def __init__(self, method: AttentionMethod) -> None:
        self._method = method
        self.name = method.name
        self.aggressiveness = method.aggressiveness
        self._errors: dict[tuple[int, int], list[Tensor]] = defaultdict(list)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, call: AttentionCall
    ) -> tuple[Tensor, Executed] | RunDense:
        """See `AttentionMethod`."""
        result = self._method.attend(query, key, value, call)
        if not isinstance(result, RunDense):
            dense = dense_attention(query, key, value, call.scale)
            self._errors[call.layer, call.step].append((result[0] - dense).norm() / dense.norm())
        return result

    def by_layer_and_step(self) -> dict[int, dict[int, float]]:
        """|output - dense| / |dense|, averaged over the calls of a layer and step; dense steps are left out."""
        table: dict[int, dict[int, float]] = defaultdict(dict)
        for (layer, step), errors in sorted(self._errors.items()):
            table[layer][step] = float(sum(errors)) / len(errors)
        return dict(table)
