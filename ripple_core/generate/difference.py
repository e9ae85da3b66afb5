"""How far a clip is from its reference. Metrics of single frames come from scikit-image."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


@dataclass(frozen=True)
class ClipDifference:
    """A clip against its reference. PSNR is None where nothing differs.

    Attributes:
        psnr_db: over all pixels of all frames.
        frame_psnr_db: of each frame.
        ssim: mean over frames.
    """

    psnr_db: float | None
    frame_psnr_db: tuple[float | None, ...]
    ssim: float

    @property
    def worst_frame_psnr_db(self) -> float | None:
        """Of the frame that differs most."""
        return min((value for value in self.frame_psnr_db if value is not None), default=None)


def compare_frames(
    reference: np.ndarray, frames: np.ndarray, before_frame: Callable[[], None] = lambda: None
) -> ClipDifference:
    """Compare two clips.

    Args:
        reference: uint8 ``[num_frames, height, width, 3]``.
        frames: the same shape.
        before_frame: called before each frame; what it raises ends the comparison.

    Raises:
        ValueError: when the shapes differ.
    """
    if reference.shape != frames.shape:
        raise ValueError(f"clips of {reference.shape} and {frames.shape} can't be compared")
    by_frame: list[float | None] = []
    similarity: list[float] = []
    for pair in zip(reference, frames, strict=True):
        before_frame()
        by_frame.append(psnr_db(*pair))
        similarity.append(1.0 if by_frame[-1] is None else _ssim(*pair))
    return ClipDifference(psnr_db(reference, frames), tuple(by_frame), float(np.mean(similarity)))


def psnr_db(reference: np.ndarray, frames: np.ndarray) -> float | None:
    """Peak signal-to-noise ratio of uint8 pictures; None when they are equal."""
    if np.array_equal(reference, frames):
        return None
    return float(peak_signal_noise_ratio(reference, frames))


def _ssim(reference: np.ndarray, frame: np.ndarray) -> float:
    # The usual window of 7 pixels does not fit into the tiniest pictures.
    window = min(7, (min(frame.shape[:2]) - 1) // 2 * 2 + 1)
    return float(structural_similarity(reference, frame, channel_axis=-1, win_size=window))
