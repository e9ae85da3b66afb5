"""Synthetic captioned clips: one or two coloured shapes over a plain or striped background.

They are the training data of the built-in model and the ground truth its judge is tested on.
"""

import math
import zlib
from dataclasses import dataclass

import numpy as np

WIDTH = HEIGHT = 128
NUM_FRAMES = 17
FPS = 8

# Objects are brighter than backgrounds: were some darker, the caption's motion alone would tell nothing about any
# pixel's mean, and a model learns last what only matters together with everything else.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (240, 55, 60),
    "orange": (250, 140, 30),
    "yellow": (245, 225, 60),
    "green": (50, 200, 80),
    "cyan": (50, 215, 230),
    "blue": (70, 115, 250),
    "purple": (170, 70, 225),
    "pink": (250, 140, 200),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring")
# Each background's stripes, from the top; a plain one has two equal ones.
BACKGROUNDS: dict[str, tuple[int, int]] = {
    "black": (8, 8),
    "dark": (48, 48),
    "grey": (92, 92),
    "striped": (15, 85),
}
# Unit steps (x, y) in image coordinates: y grows downwards.
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
MOTIONS = (*DIRECTIONS, "growing", "still")
# Two objects keep to the upper and the lower half of the picture.
MOTIONS_OF_TWO = ("left", "right", "still")

MOTION_PHRASES: dict[str, tuple[str, ...]] = {
    **{way: (f"moving {way}", f"moves {way}", f"going {way}") for way in DIRECTIONS},
    "growing": ("growing", "grows", "getting bigger"),
    "still": ("standing still", "stands still", "not moving"),
}
_TWO_OBJECTS_SHARE = 0.25
_DROP_ATTRIBUTE = 0.04
_DROP_CAPTION = 0.1
_HELD_OUT_ONE_IN = 8


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    colour: str
    shape: str
    motion: str

    def phrase(self) -> str:
        """For example "a red circle moving left"."""
        return f"{_article(self.colour)} {self.colour} {self.shape} {MOTION_PHRASES[self.motion][0]}"


@dataclass(frozen=True)
class Scene:
    """What a clip shows: one object, or an upper and a lower one."""

    things: tuple[Thing, ...]
    background: str

    def caption(self) -> str:
        """The full caption, e.g. "a red circle moving left above a blue ring standing still on a dark background"."""
        return " above ".join(thing.phrase() for thing in self.things) + f" on a {self.background} background"

    @property
    def held_out(self) -> bool:
        """Whether training never shows this scene: a fixed eighth of all, for prompts that are truly new."""
        return zlib.crc32(self.caption().encode()) % _HELD_OUT_ONE_IN == 0


def random_scene(
    rng: np.random.Generator, held_out: bool = False, two_objects_share: float = _TWO_OBJECTS_SHARE
) -> Scene:
    """A scene with every attribute drawn uniformly, two objects in a share of them; held out or not as asked."""
    while True:
        two = rng.random() < two_objects_share
        motions = MOTIONS_OF_TWO if two else MOTIONS
        things = tuple(
            Thing(str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES)), str(rng.choice(motions)))
            for _ in range(2 if two else 1)
        )
        scene = Scene(things, str(rng.choice(list(BACKGROUNDS))))
        if scene.held_out == held_out:
            return scene


def training_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption with varied wording, single attributes left out, or (for guidance) nothing at all."""
    if rng.random() < _DROP_CAPTION:
        return ""
    caption = " above ".join(_training_phrase(thing, rng) for thing in scene.things)
    if rng.random() >= _DROP_ATTRIBUTE:
        caption += f" on a {scene.background} background"
    return caption


def _training_phrase(thing: Thing, rng: np.random.Generator) -> str:
    has_colour, has_shape, has_motion = rng.random(3) >= _DROP_ATTRIBUTE
    noun = thing.shape if has_shape else "shape"
    subject = f"{_article(thing.colour)} {thing.colour} {noun}" if has_colour else f"a {noun}"
    return f"{subject} {rng.choice(MOTION_PHRASES[thing.motion])}" if has_motion else subject


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def render(
    scene: Scene,
    rng: np.random.Generator,
    num_frames: int = NUM_FRAMES,
    height: int = HEIGHT,
    width: int = WIDTH,
) -> np.ndarray:
    """Draw the scene with random size, speed, path and brightness.

    Returns:
        uint8 frames ``[num_frames, height, width, 3]``.
    """
    frames = np.repeat(_draw_background(scene.background, rng, height, width)[None], num_frames, axis=0)
    two = len(scene.things) == 2
    for index, thing in enumerate(scene.things):
        middle = (0.5, (0.26, 0.74)[index] if two else 0.5)
        _draw_thing(frames, thing, middle, 0.75 if two else 1.0, rng)
    return np.clip(frames, 0, 255).round().astype(np.uint8)


def _draw_background(name: str, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Horizontal stripes, an eighth of the height each; float32 ``[height, width, 3]``."""
    stripe = np.arange(height) * 8 // height % 2
    brightness = np.array(BACKGROUNDS[name], np.float32)[stripe] + rng.uniform(-8, 8)
    return np.broadcast_to(brightness[:, None, None], (height, width, 3)).copy()


def _draw_thing(
    frames: np.ndarray, thing: Thing, middle: tuple[float, float], size: float, rng: np.random.Generator
) -> None:
    num_frames, height, width, _ = frames.shape
    scale = min(height, width) / 128
    radius = rng.uniform(25, 30) * size * scale
    travel = rng.uniform(50, 60) * scale
    along, aside, above = rng.uniform((-6, -12, -12), (6, 12, 12)) * scale
    step_x, step_y = DIRECTIONS.get(thing.motion, (0, 0))
    colour = np.array(COLOURS[thing.colour], np.float32) + rng.uniform(-8, 8)
    for index, frame in enumerate(frames):
        time = index / max(num_frames - 1, 1)
        # From a little before the middle to well past it: so the side an object is on tells its direction as well.
        way = travel * (time - 0.25) + along
        x = middle[0] * width + (step_x * way if step_x else aside)
        y = middle[1] * height + (step_y * way if step_y else above * (0.3 if size < 1 else 1))
        _draw_shape(frame, thing.shape, x, y, radius * (0.4 + time if thing.motion == "growing" else 1), colour)


def _draw_shape(frame: np.ndarray, shape: str, x: float, y: float, radius: float, colour: np.ndarray) -> None:
    top, left = max(int(y - 1.5 * radius) - 2, 0), max(int(x - 1.5 * radius) - 2, 0)
    part = frame[top : int(y + 1.5 * radius) + 3, left : int(x + 1.5 * radius) + 3]
    if part.size:
        inside = coverage(shape, x - left, y - top, radius, *part.shape[:2])[..., None]
        part += (colour - part) * inside


def coverage(shape: str, centre_x: float, centre_y: float, radius: float, height: int, width: int) -> np.ndarray:
    """Share of each pixel the shape covers, float32 ``[height, width]``: its signed distance, one pixel soft."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    x, y = x - centre_x, y - centre_y
    if shape == "circle":
        distance = np.hypot(x, y) - radius
    elif shape == "ring":
        distance = np.abs(np.hypot(x, y) - 0.82 * radius) - 0.3 * radius
    elif shape == "square":
        distance = np.maximum(np.abs(x), np.abs(y)) - 0.9 * radius
    elif shape == "cross":
        x, y = np.abs(x), np.abs(y)
        distance = np.minimum(
            np.maximum(x - 1.1 * radius, y - 0.36 * radius), np.maximum(y - 1.1 * radius, x - 0.36 * radius)
        )
    else:
        # Equilateral, pointing up: the largest distance to its three sides, its middle on the centre.
        sides = [(math.cos(angle), math.sin(angle)) for angle in (math.pi / 2, -math.pi / 6, -5 * math.pi / 6)]
        distance = np.max([nx * x + ny * (y - 0.15 * radius) for nx, ny in sides], axis=0) - 0.7 * radius
    return np.clip(0.5 - distance, 0.0, 1.0).astype(np.float32)
