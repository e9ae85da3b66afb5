"""How far a video is from its reference. Metrics of single frames come from scikit-image."""

import numpy as np
from pydantic import BaseModel, Field
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


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
    if reference.shape != frames.shape:
        raise ValueError(f"clips of {reference.shape} and {frames.shape} can't be compared")
    by_frame = [psnr_db(*pair) for pair in zip(reference, frames, strict=True)]
    finite = [value for value in by_frame if value is not None]
    worst = min(finite, default=None)
    return ClipFidelity(
        identical=not finite,
        psnr_db=psnr_db(reference, frames),
        worst_frame_psnr_db=worst,
        worst_frame=by_frame.index(worst) if worst is not None else None,
        mean_frame_psnr_db=float(np.mean(finite)) if finite else None,
        ssim=float(np.mean([_ssim(*pair) for pair in zip(reference, frames, strict=True)])),
        flicker=_flicker(reference, frames),
    )


def psnr_db(reference: np.ndarray, frames: np.ndarray) -> float | None:
    """Peak signal-to-noise ratio of uint8 pictures; None when they are equal."""
    if np.array_equal(reference, frames):
        return None
    return float(peak_signal_noise_ratio(reference, frames))


def _ssim(reference: np.ndarray, frame: np.ndarray) -> float:
    # The usual window of 7 pixels does not fit into the tiniest pictures.
    window = min(7, (min(frame.shape[:2]) - 1) // 2 * 2 + 1)
    return float(structural_similarity(reference, frame, channel_axis=-1, win_size=window))


def _flicker(reference: np.ndarray, frames: np.ndarray) -> float:
    if len(frames) == 1:
        return 0.0
    change = np.diff(frames.astype(np.float32), axis=0) - np.diff(reference.astype(np.float32), axis=0)
    return float(np.abs(change).mean())
