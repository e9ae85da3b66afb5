"""The judge is right about clips whose content is known, and does not see what is not there."""

import itertools

import numpy as np
import pytest

from ripple_core.tiny.clips import BACKGROUNDS, COLOURS, MOTIONS, MOTIONS_OF_TWO, SHAPES, Scene, Thing, render
from ripple_core.tiny.evaluate import evaluate, fresh_scenes
from ripple_core.tiny.judge import Verdict, judge


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_single_object_is_read_right(motion: str) -> None:
    """All colours, shapes and backgrounds, paired so that each meets each other one."""
    rng = np.random.default_rng(1)
    for number, (colour, shape) in enumerate(itertools.product(COLOURS, SHAPES)):
        scene = Scene((Thing(colour, shape, motion),), list(BACKGROUNDS)[number % len(BACKGROUNDS)])
        assert judge(render(scene, rng)) == Verdict(scene.things, scene.background)


def test_two_objects_are_read_right() -> None:
    rng = np.random.default_rng(2)
    for above, below in itertools.product(MOTIONS_OF_TWO, repeat=2):
        scene = Scene((Thing("red", "ring", above), Thing("cyan", "cross", below)), "striped")
        assert judge(render(scene, rng)) == Verdict(scene.things, scene.background)


def test_noise_as_strong_as_a_codecs_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    scenes = fresh_scenes(16, seed=3)
    noisy = [np.clip(render(scene, rng) + rng.normal(0, 8, (17, 128, 128, 3)), 0, 255) for scene in scenes]
    result = evaluate(scenes, [judge(frames.astype(np.uint8)) for frames in noisy])
    assert (result.right["all"], result.wrong) == (1.0, [])


def test_shuffled_captions_are_wrong() -> None:
    """Well below the 20 % at which a judge would be of no use."""
    rng = np.random.default_rng(4)
    scenes = fresh_scenes(40, seed=4)
    assert evaluate(scenes, [judge(render(scene, rng)) for scene in scenes]).shuffled <= 0.05


def test_one_wrong_attribute_is_a_wrong_clip() -> None:
    shown = Scene((Thing("red", "circle", "left"),), "dark")
    verdict = judge(render(shown, np.random.default_rng(0)))
    for asked, wrong in (
        (Scene((Thing("pink", "circle", "left"),), "dark"), "colour"),
        (Scene((Thing("red", "ring", "left"),), "dark"), "shape"),
        (Scene((Thing("red", "circle", "right"),), "dark"), "motion"),
        (Scene(shown.things, "black"), "background"),
    ):
        assert [name for name, right in verdict.matches(asked).items() if not right] == [wrong]
    two = Scene((*shown.things, Thing("red", "circle", "left")), "dark")
    assert not any(right for name, right in verdict.matches(two).items() if name != "background")


def test_an_empty_clip_shows_a_background_only() -> None:
    frames = np.full((17, 128, 128, 3), BACKGROUNDS["grey"][0], np.uint8)
    assert judge(frames) == Verdict((), "grey")


def test_an_object_in_half_of_the_frames_is_half_a_motion() -> None:
    """It is judged where it is seen; a clip whose object is gone most of the time shows none."""
    frames = render(Scene((Thing("blue", "square", "still"),), "black"), np.random.default_rng(0))
    frames[3:] = BACKGROUNDS["black"][0]
    assert judge(frames).things == ()
