"""Fills a request's gaps from the model's defaults and checks it against what the model can take."""

import secrets
from collections.abc import Collection

from ripple_core.contract.errors import InvalidRequest, Violation
from ripple_core.contract.models import ModelSpec
from ripple_core.contract.request import GenerateRequest, ResolvedRequest


def resolve(
    request: GenerateRequest,
    spec: ModelSpec,
    image_sha256: str | None = None,
    loras: Collection[str] = (),
    needs_image: bool = True,
) -> ResolvedRequest:
    """Fill in every default, draw a seed if none is given, and check everything against the model.

    Args:
        request: as the client sent it.
        spec: the model that will run it.
        image_sha256: of the decoded image, if the request brought one.
        loras: names that may be asked for.
        needs_image: whether an image must be there for a model that begins from one.

    Raises:
        InvalidRequest: with all violations at once, each with the nearest values that would do.
    """
    asked = request.model_dump(exclude_none=True, include=set(ResolvedRequest.model_fields))
    # Not the values that its class has by default.
    reuse = spec.defaults.reuse.model_dump() | request.model_dump(include={"reuse"}, exclude_unset=True).get(
        "reuse", {}
    )
    chosen = spec.defaults.model_dump() | asked | {"model": spec.id, "image_sha256": image_sha256, "reuse": reuse}
    chosen.setdefault("seed", secrets.randbelow(2**32))
    resolved = ResolvedRequest(**chosen)
    violations = [
        *_check_size("width", resolved.width, spec),
        *_check_size("height", resolved.height, spec),
        *_check_frames(resolved.num_frames, spec),
        *_check_image(image_sha256 is not None, spec, needs_image),
        *_check_loras(resolved, loras),
    ]
    # The product says something only when its factors are right.
    if violations := violations or _check_work(resolved, spec):
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


def _check_image(given: bool, spec: ModelSpec, is_needed: bool) -> list[Violation]:
    if given == spec.takes_image or not (given or is_needed):
        return []
    if given:
        return [Violation("image", f"{spec.id} makes videos from text alone; leave the image out", "no image")]
    return [Violation("image", f"{spec.id} begins from an image; send one", "a PNG, JPEG or WebP")]


def _check_loras(request: ResolvedRequest, loras: Collection[str]) -> list[Violation]:
    names = ", ".join(sorted(loras)) or "none on this server"
    return [
        Violation(f"loras.{index}.name", f"{lora.name!r} is not known; known are: {names}", names)
        for index, lora in enumerate(request.loras)
        if lora.name not in loras
    ]


def _check_work(request: ResolvedRequest, spec: ModelSpec) -> list[Violation]:
    """Pixels x frames x steps, twice that with the dense twin: no request may take a worker for hours."""
    volume = request.width * request.height * request.num_frames * (2 if request.quality_check else 1)
    work = volume * request.num_inference_steps
    if work <= spec.work_limit:
        return []
    twin = " x 2 for the quality check" if request.quality_check else ""
    message = (
        f"{request.width}x{request.height} pixels x {request.num_frames} frames x {request.num_inference_steps} steps"
        f"{twin} is {work:,}; {spec.id} takes at most {spec.work_limit:,} in one request"
    )
    most_steps = spec.work_limit // volume
    if most_steps:
        allowed = f"at most {most_steps} at this size and number of frames"
        return [Violation("num_inference_steps", f"{message}: {allowed}", allowed, (most_steps,))]
    return [Violation("num_frames", f"{message}; ask for a smaller size or fewer frames", "fewer frames")]


def _violation(field: str, value: int, allowed: str, nearest: tuple[int, ...]) -> Violation:
    choices = " or ".join(str(choice) for choice in nearest)
    return Violation(field, f"{value} is not {allowed}; nearest: {choices}", allowed, nearest)


def _nearest(value: int, step: int, offset: int, largest: int) -> tuple[int, ...]:
    """The allowed values (multiples of step plus offset) on either side of value."""
    smallest = offset or step
    below = (value - offset) // step * step + offset
    last = (largest - offset) // step * step + offset
    return tuple(sorted({min(max(choice, smallest), last) for choice in (below, below + step)}))
