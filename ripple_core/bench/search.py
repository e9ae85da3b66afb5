"""Finds the setting of a dial that just meets a condition."""

import math
from collections.abc import Callable


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
