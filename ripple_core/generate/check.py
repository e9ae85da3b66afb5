"""Whether frames can be a video at all."""

import numpy as np
from torch import Tensor

# Of the range 0..1. Any other single colour may be what was asked for.
_BLACK = 2 / 255


def problem_with_latents(latents: Tensor) -> str | None:
    """What is wrong with a video's latents, of any shape; None when all are numbers."""
    return None if bool(latents.isfinite().all()) else "The latents hold NaN or infinity"


def problem_with_frames(frames: np.ndarray) -> str | None:
    """What is wrong with frames: values that are no numbers, or black everywhere.

    Args:
        frames: float ``[num_frames, height, width, 3]``, 0..1.
    """
    if not np.isfinite(frames).all():
        return "The frames hold NaN or infinity"
    return "All frames are black" if frames.max() <= _BLACK else None
