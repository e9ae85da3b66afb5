"""Synthetic captioned clips: one coloured shape moving over a plain background.

They are the training data of the built-in model and the ground truth its judge is tested on.
"""

import math
from dataclasses import dataclass, fields

import numpy as np

WIDTH = HEIGHT = 64
NUM_FRAMES = 17
FPS = 8

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 210, 40),
    "purple": (160, 50, 200),
    "orange": (245, 130, 20),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "dark": (28, 28, 32),
    "grey": (128, 128, 128),
    "light": (232, 232, 228),
}
SHAPES = ("circle", "square", "triangle")
# Unit steps (x, y) in image coordinates: y grows downwards.
MOTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}

_DROP_ATTRIBUTE = 0.08
_DROP_CAPTION = 0.1


@dataclass(frozen=True)
class Scene:
    """What a clip shows; every field is a word of the caption."""

    colour: str
    shape: str
    motion: str
    background: str

    def caption(self) -> str:
        """The full caption, e.g. "a red circle moving left on a dark background"."""
        return f"a {self.colour} {self.shape} moving {self.motion} on a {self.background} background"


def random_scene(rng: np.random.Generator) -> Scene:
    """A scene with every attribute drawn uniformly."""
    return Scene(
        colour=str(rng.choice(list(COLOURS))),
        shape=str(rng.choice(SHAPES)),
        motion=str(rng.choice(list(MOTIONS))),
        background=str(rng.choice(list(BACKGROUNDS))),
    )


def training_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption with varied wording, single attributes left out, or (for guidance) nothing at all."""
    if rng.random() < _DROP_CAPTION:
        return ""
    keep = {field.name: rng.random() >= _DROP_ATTRIBUTE for field in fields(scene)}
    noun = scene.shape if keep["shape"] else "shape"
    subject = f"{scene.colour} {noun}" if keep["colour"] else noun
    motion = rng.choice((f"moving {scene.motion}", f"moves {scene.motion}", f"going {scene.motion}"))
    background = rng.choice((f"on a {scene.background} background", f"{scene.background} background"))
    parts = [rng.choice(("a ", "")) + subject]
    if keep["motion"]:
        parts.append(str(motion))
    if keep["background"]:
        parts.append(str(background))
    return " ".join(parts)


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
    scale = min(height, width) / 64
    radius = rng.uniform(8, 11) * scale
    travel = rng.uniform(22, 30) * scale
    across = rng.uniform(-10, 10) * scale
    along = rng.uniform(-3, 3) * scale
    step_x, step_y = MOTIONS[scene.motion]
    brightness = rng.uniform(-8, 8)
    background = np.array(BACKGROUNDS[scene.background], np.float32) + brightness
    colour = np.array(COLOURS[scene.colour], np.float32) + rng.uniform(-8, 8)

    frames = np.empty((num_frames, height, width, 3), np.float32)
    for index in range(num_frames):
        progress = along + travel * (index / max(num_frames - 1, 1) - 0.5)
        centre_x = width / 2 + step_x * progress + (across if step_x == 0 else 0)
        centre_y = height / 2 + step_y * progress + (across if step_y == 0 else 0)
        inside = _coverage(scene.shape, centre_x, centre_y, radius, height, width)[..., None]
        frames[index] = background * (1 - inside) + colour * inside
    return np.clip(frames, 0, 255).round().astype(np.uint8)


def _coverage(shape: str, centre_x: float, centre_y: float, radius: float, height: int, width: int) -> np.ndarray:
    """Share of each pixel the shape covers ``[height, width]``: its signed distance, one pixel soft."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    x, y = x - centre_x, y - centre_y
    if shape == "circle":
        distance = np.hypot(x, y) - radius
    elif shape == "square":
        distance = np.maximum(np.abs(x), np.abs(y)) - 0.88 * radius
    else:
        # Equilateral, pointing up: the largest distance to its three sides.
        sides = [(math.cos(angle), math.sin(angle)) for angle in (math.pi / 2, -math.pi / 6, -5 * math.pi / 6)]
        distance = np.max([nx * x + ny * y for nx, ny in sides], axis=0) - 0.62 * radius
    return np.clip(0.5 - distance, 0.0, 1.0)
