"""Fills a request's gaps from the model's defaults and checks it against what the model can take."""

import secrets

from ripple_core.contract.errors import InvalidRequest, Violation
from ripple_core.contract.models import ModelSpec
from ripple_core.contract.request import GenerateRequest, ResolvedRequest


def resolve(request: GenerateRequest, spec: ModelSpec) -> ResolvedRequest:
    """Fill in every default, draw a seed if none is given, and check sizes against the model.

    Raises:
        InvalidRequest: with all violations at once, each with the nearest values that would do.
    """
    chosen = spec.defaults.model_dump() | request.model_dump(exclude_none=True, exclude={"reuse"})
    chosen["model"] = spec.id
    chosen.setdefault("seed", secrets.randbelow(2**32))
    resolved = ResolvedRequest(**chosen, reuse=request.reuse)
    violations = [
        *_check_size("width", resolved.width, spec),
        *_check_size("height", resolved.height, spec),
        *_check_frames(resolved.num_frames, spec),
    ]
    if violations:
        raise InvalidRequest(violations)
    return resolved


def _check_size(field: str, value: int, spec: ModelSpec) -> list[Violation]:
    step, largest = spec.size_multiple, spec.max_size
    if value % step == 0 and step <= value <= largest:
        return []
    allowed = f"a multiple of {step} from {step} to {largest}"
    return [_violation(field, value, allowed, _nearest(value, step, 0, largest))]


def _check_frames(value: int, spec: ModelSpec) -> list[Violation]:
    step, largest = spec.frame_multiple, spec.max_frames
    if value % step == 1 % step and 1 <= value <= largest:
        return []
    allowed = f"a multiple of {step}, plus 1, from 1 to {largest}"
    return [_violation("num_frames", value, allowed, _nearest(value, step, 1, largest))]


def _violation(field: str, value: int, allowed: str, nearest: tuple[int, ...]) -> Violation:
    choices = " or ".join(str(choice) for choice in nearest)
    return Violation(field, f"{value} is not {allowed}; nearest: {choices}", allowed, nearest)


def _nearest(value: int, step: int, offset: int, largest: int) -> tuple[int, ...]:
    """The allowed values (multiples of step plus offset) on either side of value."""
    smallest = offset or step
    below = (value - offset) // step * step + offset
    last = (largest - offset) // step * step + offset
    return tuple(sorted({min(max(choice, smallest), last) for choice in (below, below + step)}))
