"""Reads off the pixels of a clip what it shows: background, and every object's colour, shape and motion."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from skimage.measure import label, regionprops
from skimage.morphology import dilation

from ripple_core.tiny.clips import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, Scene, Thing, coverage

# The backgrounds are nearly grey and the colours are not: chroma (max - min channel, 0..255) parts them.
_MIN_CHROMA = 60
_MIN_OBJECT_SHARE = 0.006
_MIN_TRAVEL_SHARE = 0.12
# Ratio of the object's area in the last quarter of the clip to that in the first.
_MIN_GROWTH = 1.6
_MIN_STRIPE_DEVIATION = 18
_SHAPE_FRAMES = 6


@dataclass(frozen=True)
class Verdict:
    """What the pixels show.

    Attributes:
        things: the objects from the top down; none where nothing could be made out.
        background: None where an object covers everything.
    """

    things: tuple[Thing, ...]
    background: str | None

    def matches(self, scene: Scene) -> dict[str, bool]:
        """Whether number of objects and all colours, shapes, motions and the background are the scene's."""
        pairs = list(zip(self.things, scene.things, strict=False))
        complete = len(self.things) == len(scene.things)
        same = {name: complete and all(getattr(a, name) == getattr(b, name) for a, b in pairs) for name in ATTRIBUTES}
        return same | {"background": self.background == scene.background}


ATTRIBUTES = ("colour", "shape", "motion")


def judge(frames: np.ndarray) -> Verdict:
    """Name what a clip shows.

    Args:
        frames: uint8 ``[num_frames, height, width, 3]``.

    Returns:
        Objects are connected coloured regions of at least 0.6 % of the picture, as many as in most frames. An
        object's colour is the palette's nearest to its purer half; its shape the one whose outline of equal area
        overlaps it best; its motion "growing" when its area grows by 60 %, else the direction its centre takes when
        it travels 12 % of the shorter side, else "still".
    """
    pixels = frames.astype(np.float32)
    chroma = pixels.max(-1) - pixels.min(-1)
    regions = [_regions(frame) for frame in chroma > _MIN_CHROMA]
    count = int(np.median([len(found) for found in regions]))
    complete = [(index, found) for index, found in enumerate(regions) if len(found) == count]
    things = []
    for place in range(count):
        track = np.zeros((len(complete), *chroma.shape[1:]), bool)
        for mask, (_, found) in zip(track, complete, strict=True):
            mask[tuple(found[place].coords.T)] = True
        shown = [index for index, _ in complete]
        things.append(Thing(_colour(pixels[shown], chroma[shown], track), _shape(track), _motion(track)))
    return Verdict(tuple(things), _background(pixels, chroma > _MIN_CHROMA))


def _regions(mask: np.ndarray) -> list:  # type: ignore[type-arg]
    """Connected regions of a frame's mask that are large enough, from the top down."""
    found = [region for region in regionprops(label(mask)) if region.area >= _MIN_OBJECT_SHARE * mask.size]
    return sorted(found, key=lambda region: float(region.centroid[0]))


def _colour(pixels: np.ndarray, chroma: np.ndarray, track: np.ndarray) -> str:
    is_pure = track & (chroma >= np.median(chroma[track]))
    colour = np.median(pixels[is_pure], axis=0)
    return min(COLOURS, key=lambda name: float(np.linalg.norm(colour - np.array(COLOURS[name]))))


def _motion(track: np.ndarray) -> str:
    quarter = max(len(track) // 4, 1)
    first, last = track[:quarter], track[-quarter:]
    if last.sum() > _MIN_GROWTH * first.sum():
        return "growing"
    travel = _centre(last) - _centre(first)
    if np.abs(travel).max() < _MIN_TRAVEL_SHARE * min(track.shape[1:]):
        return "still"
    return max(DIRECTIONS, key=lambda name: float(travel @ np.array(DIRECTIONS[name])))


def _centre(masks: np.ndarray) -> np.ndarray:
    """Mean (x, y) of masks ``[frames, y, x]``."""
    _, y, x = np.nonzero(masks)
    return np.array([x.mean(), y.mean()])


def _shape(track: np.ndarray) -> str:
    chosen = track[np.linspace(0, len(track) - 1, _SHAPE_FRAMES).astype(int)]
    return max(SHAPES, key=lambda shape: sum(_overlap(mask, shape) for mask in chosen))


def _overlap(mask: np.ndarray, shape: str) -> float:
    """Intersection over union of a mask and the shape of its area around its centre."""
    area, offset = _outline(shape)
    radius = float(np.sqrt(mask.sum() / area))
    x, y = _centre(mask[None]) + 0.5 - offset * radius
    ideal = coverage(shape, x, y, radius, *mask.shape)
    return float(np.minimum(mask, ideal).sum() / np.maximum(mask, ideal).sum())


@lru_cache
def _outline(shape: str) -> tuple[float, np.ndarray]:
    """Area and centre (x, y) of the shape of radius 1 drawn around (0, 0)."""
    drawn = coverage(shape, 128, 128, 64, 256, 256)
    return float(drawn.sum()) / 64**2, (_centre(drawn[None] > 0.5) + 0.5 - 128) / 64


def _background(pixels: np.ndarray, is_object: np.ndarray) -> str | None:
    outside = ~dilation(is_object, np.ones((1, 7, 7)))
    if not outside.any():
        return None
    brightness = pixels.mean(-1)
    rows = [np.median(brightness[:, y][outside[:, y]]) for y in range(pixels.shape[1]) if outside[:, y].any()]
    if np.std(rows) > _MIN_STRIPE_DEVIATION:
        return "striped"
    plain = {name: stripes[0] for name, stripes in BACKGROUNDS.items() if stripes[0] == stripes[1]}
    return min(plain, key=lambda name: abs(plain[name] - float(np.median(brightness[outside]))))
