"""Whether frames can be a video at all."""

import numpy as np
from torch import Tensor

# Of the range 0..1: less than this no 8-bit pixel shows.
_ONE_COLOUR = 1 / 255


def problem_with_latents(latents: Tensor) -> str | None:
    """What is wrong with a video's latents, of any shape; None when all are numbers."""
    return None if bool(latents.isfinite().all()) else "The latents hold NaN or infinity"


def problem_with_frames(frames: np.ndarray) -> str | None:
    """What is wrong with frames: values that are no numbers, or the same colour everywhere, such as black.

    Args:
        frames: float ``[num_frames, height, width, 3]``, 0..1.
    """
    if not np.isfinite(frames).all():
        return "The frames hold NaN or infinity"
    spread = frames.max(axis=(0, 1, 2)) - frames.min(axis=(0, 1, 2))
    return "All frames are of one colour" if spread.max() <= _ONE_COLOUR else None
