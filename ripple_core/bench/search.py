"""Finds the setting of a dial that just meets a condition."""

import math
from collections.abc import Callable

_SMALLEST_BUDGET = 1e-3
_BUDGETS_TRIED = 9


def bisect(holds: Callable[[float], bool], inside: float, outside: float, steps: int = 6) -> float:
    """The value found nearest to `outside` for which a monotone condition holds; it is taken to hold at `inside`.

    Args:
        holds: asked once a step.
        inside: above 0, as `outside`, and on either side of it; bisection is on a logarithmic scale.
        outside: where it may not hold.
        steps: each halves the distance.
    """
    for _ in range(steps):
        middle = math.sqrt(inside * outside)
        if holds(middle):
            inside = middle
        else:
            outside = middle
    return inside


def budget_that_saves(wanted: float, savings_at: Callable[[float], float], largest: float) -> float:
    """The smallest error budget found that saves at least the wanted share of attention.

    Args:
        wanted: 0..1.
        savings_at: the share that a budget saves.
        largest: budget that is taken to save enough.
    """
    return bisect(lambda budget: savings_at(budget) >= wanted, largest, _SMALLEST_BUDGET, _BUDGETS_TRIED)
