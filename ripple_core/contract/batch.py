"""Which requests can be generated in one run of the pipeline."""

from ripple_core.contract.request import ResolvedRequest

_SHARED = ("model", "width", "height", "num_frames", "num_inference_steps", "guidance_scale", "reuse")


def can_share(first: ResolvedRequest, second: ResolvedRequest) -> bool:
    """Whether two requests can share a run: prompt, seed, frame rate, file format and preview may differ.

    LoRAs sit on the whole transformer, and first frames and dense twins are a run's own.
    """
    return all(_runs_plain(request) for request in (first, second)) and all(
        getattr(first, name) == getattr(second, name) for name in _SHARED
    )


def _runs_plain(request: ResolvedRequest) -> bool:
    return not request.loras and not request.quality_check and request.image_sha256 is None
