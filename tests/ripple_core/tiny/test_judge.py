"""The judge is right about clips whose content is known."""

import itertools

import numpy as np
import pytest

from ripple_core.tiny.clips import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, Scene, random_scene, render, training_caption
from ripple_core.tiny.judge import Verdict, judge


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_ground_truth_clip_is_read_right(motion: str) -> None:
    rng = np.random.default_rng(1)
    for colour, background, shape in itertools.product(COLOURS, BACKGROUNDS, SHAPES):
        frames = render(Scene(colour, shape, motion, background), rng)
        verdict = judge(frames)
        assert (verdict.colour, verdict.background, verdict.motion) == (colour, background, motion)
        assert 22 / 64 * 0.9 < verdict.travel < 30 / 64 * 1.1


def test_an_empty_clip_shows_a_background_only() -> None:
    frames = np.full((17, 64, 64, 3), BACKGROUNDS["grey"], np.uint8)
    assert judge(frames) == Verdict(None, "grey", None)


def test_a_still_object_has_no_motion() -> None:
    still = render(Scene("red", "circle", "left", "dark"), np.random.default_rng(0))[:1].repeat(17, axis=0)
    assert judge(still) == Verdict("red", "dark", None)


def test_captions_name_what_is_shown() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        scene = random_scene(rng)
        words = training_caption(scene, rng).split()
        for palette, shown in (
            (COLOURS, scene.colour),
            (SHAPES, scene.shape),
            (MOTIONS, scene.motion),
            (BACKGROUNDS, scene.background),
        ):
            assert {word for word in words if word in palette} <= {shown}
