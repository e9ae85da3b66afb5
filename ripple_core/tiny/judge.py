"""Reads colour, background and direction of motion off the pixels of a clip."""

from dataclasses import dataclass

import numpy as np

from ripple_core.tiny.clips import BACKGROUNDS, COLOURS, MOTIONS

# The backgrounds are nearly grey and the colours are not: chroma (max - min channel, 0..255) parts them.
_MIN_CHROMA = 70
_MIN_OBJECT_SHARE = 0.01
_MIN_TRAVEL_SHARE = 0.12


@dataclass(frozen=True)
class Verdict:
    """What the pixels show; None where nothing could be made out."""

    colour: str | None
    background: str | None
    motion: str | None


def judge(frames: np.ndarray) -> Verdict:
    """Name what a clip shows.

    Args:
        frames: uint8 ``[num_frames, height, width, 3]``.

    Returns:
        The colour and background nearest in RGB, and the direction in which the coloured pixels' centre travels
        from the first quarter of the clip to the last (None under 12 % of the shorter side).
    """
    pixels = frames.astype(np.float32)
    is_object = pixels.max(-1) - pixels.min(-1) > _MIN_CHROMA
    background = _nearest(np.median(pixels[~is_object], axis=0), BACKGROUNDS) if (~is_object).any() else None
    if is_object.mean() < _MIN_OBJECT_SHARE:
        return Verdict(colour=None, background=background, motion=None)
    return Verdict(
        colour=_nearest(np.median(pixels[is_object], axis=0), COLOURS),
        background=background,
        motion=_motion(is_object),
    )


def _nearest(colour: np.ndarray, palette: dict[str, tuple[int, int, int]]) -> str:
    return min(palette, key=lambda name: float(np.linalg.norm(colour - np.array(palette[name]))))


def _motion(is_object: np.ndarray) -> str | None:
    """Direction between the object's mean places in the first and last quarter; is_object ``[frames, y, x]``."""
    quarter = max(len(is_object) // 4, 1)
    first, last = (_centre(part) for part in (is_object[:quarter], is_object[-quarter:]))
    if first is None or last is None:
        return None
    travel = last - first
    if np.abs(travel).max() < _MIN_TRAVEL_SHARE * min(is_object.shape[1:]):
        return None
    return max(MOTIONS, key=lambda name: float(travel @ np.array(MOTIONS[name])))


def _centre(mask: np.ndarray) -> np.ndarray | None:
    _, y, x = np.nonzero(mask)
    return np.array([x.mean(), y.mean()]) if len(x) else None
