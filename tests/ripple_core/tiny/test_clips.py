"""Training clips and their captions."""

import numpy as np

from ripple_core.tiny import architecture
from ripple_core.tiny.clips import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, random_scene, render, training_caption


def test_there_is_enough_variety() -> None:
    assert len(COLOURS) >= 8
    assert len(SHAPES) >= 5
    assert len(MOTIONS) >= 6
    assert len(BACKGROUNDS) >= 4


def test_captions_name_only_what_is_shown() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        scene = random_scene(rng)
        words = set(training_caption(scene, rng).split())
        assert words & set(COLOURS) <= {thing.colour for thing in scene.things}
        assert words & set(SHAPES) <= {thing.shape for thing in scene.things}
        assert words & set(BACKGROUNDS) <= {scene.background}


def test_held_out_scenes_are_an_eighth_and_never_drawn_for_training() -> None:
    rng = np.random.default_rng(0)
    assert not any(random_scene(rng).held_out for _ in range(500))
    assert all(random_scene(rng, held_out=True).held_out for _ in range(50))


def test_the_tokenizer_knows_every_word() -> None:
    rng = np.random.default_rng(0)
    tokenizer = architecture.build_tokenizer()
    for _ in range(200):
        scene = random_scene(rng)
        for caption in (scene.caption(), training_caption(scene, rng)):
            assert tokenizer.unk_token_id not in tokenizer(caption).input_ids
    assert tokenizer("a tartan circle").input_ids.count(tokenizer.unk_token_id) == 1


def test_a_clip_depends_on_its_generator_alone() -> None:
    scene = random_scene(np.random.default_rng(1))
    first, second = (render(scene, np.random.default_rng(2), 9, 64, 96) for _ in range(2))
    assert first.shape == (9, 64, 96, 3)
    assert np.array_equal(first, second)
