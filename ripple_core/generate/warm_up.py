"""A first video that nobody sees."""

import time

from PIL import Image

from ripple_core.contract.request import GenerateRequest
from ripple_core.contract.validate import resolve
from ripple_core.generate.load import LoadedModel
from ripple_core.generate.run import generate_frames

# The first step is dense by every schedule, and step caches need one to skip after it.
_STEPS = 3


def warm_up(model: LoadedModel) -> float:
    """Generate a video of the model's default size in a few steps, so that kernels and compiled code are ready.

    Returns:
        Seconds that it took.

    Raises:
        GenerationFailed: when the model cannot even do that.
    """
    began = time.monotonic()
    spec = model.spec
    digest = "0" * 64 if spec.takes_image else None
    request = resolve(GenerateRequest(prompt="a warm-up", seed=0, num_inference_steps=_STEPS), spec, digest)
    image = Image.new("RGB", (request.width, request.height), "grey") if spec.takes_image else None
    generate_frames(model, request, first_frame=image)
    return time.monotonic() - began
