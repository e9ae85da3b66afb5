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
    # How far the object's centre gets around in the clip, as a share of the shorter side.
    travel: float = 0.0


def judge(frames: np.ndarray) -> Verdict:
    """Name what a clip shows.

    Args:
        frames: uint8 ``[num_frames, height, width, 3]``.

    Returns:
        The colour and background nearest in RGB, and the direction in which the coloured pixels' centre travels
        from the first quarter of the clip to the last (None under 12 % of the shorter side). The object's colour is
        that of its purer half, which leaves out its blended edge.
    """
    pixels = frames.astype(np.float32)
    chroma = pixels.max(-1) - pixels.min(-1)
    is_object = chroma > _MIN_CHROMA
    background = _nearest(np.median(pixels[~is_object], axis=0), BACKGROUNDS) if (~is_object).any() else None
    if is_object.mean() < _MIN_OBJECT_SHARE:
        return Verdict(colour=None, background=background, motion=None)
    is_pure = chroma >= np.median(chroma[is_object])
    return Verdict(
        colour=_nearest(np.median(pixels[is_pure], axis=0), COLOURS),
        background=background,
        motion=_motion(is_object),
        travel=_travel(is_object),
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


def _travel(is_object: np.ndarray) -> float:
    centres = [centre for frame in is_object if (centre := _centre(frame[None])) is not None]
    return float(np.ptp(centres, axis=0).max() / min(is_object.shape[1:]))


def _centre(mask: np.ndarray) -> np.ndarray | None:
    _, y, x = np.nonzero(mask)
    return np.array([x.mean(), y.mean()]) if len(x) else None
