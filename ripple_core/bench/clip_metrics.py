"""How far a clip of the bench is from its dense reference."""

import numpy as np
from pydantic import BaseModel, Field

from ripple_core.generate.difference import compare_frames


class ClipFidelity(BaseModel):
    """One video against the dense one of the same prompt and seed. PSNR is None where nothing differs."""

    identical: bool
    psnr_db: float | None = Field(description="Over all pixels of all frames.")
    worst_frame_psnr_db: float | None
    worst_frame: int | None = Field(description="Index of the frame with the lowest PSNR.")
    mean_frame_psnr_db: float | None = Field(description="Mean over the frames that differ.")
    ssim: float = Field(description="Mean over frames.")
    flicker: float = Field(
        description="Mean absolute difference of frame-to-frame differences, in levels of 0..255; 0 for one frame."
    )


def compare(reference: np.ndarray, frames: np.ndarray) -> ClipFidelity:
    """Compare two clips.

    Args:
        reference: uint8 ``[num_frames, height, width, 3]``.
        frames: the same shape.

    Raises:
        ValueError: when the shapes differ.
    """
    difference = compare_frames(reference, frames)
    by_frame, worst = difference.frame_psnr_db, difference.worst_frame_psnr_db
    finite = [value for value in by_frame if value is not None]
    return ClipFidelity(
        identical=not finite,
        psnr_db=difference.psnr_db,
        worst_frame_psnr_db=worst,
        worst_frame=by_frame.index(worst) if worst is not None else None,
        mean_frame_psnr_db=float(np.mean(finite)) if finite else None,
        ssim=difference.ssim,
        flicker=_flicker(reference, frames),
    )


def _flicker(reference: np.ndarray, frames: np.ndarray) -> float:
    if len(frames) == 1:
        return 0.0
    change = np.diff(frames.astype(np.float32), axis=0) - np.diff(reference.astype(np.float32), axis=0)
    return float(np.abs(change).mean())
