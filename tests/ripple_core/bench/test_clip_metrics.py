"""Metrics of clips whose difference is known."""

import numpy as np
import pytest

from ripple_core.bench.clip_metrics import compare

RNG = np.random.default_rng(0)
CLIP = RNG.integers(50, 200, (5, 16, 24, 3)).astype(np.uint8)


def test_equal_clips_are_identical() -> None:
    found = compare(CLIP, CLIP.copy())
    assert found.identical
    assert (found.psnr_db, found.worst_frame, found.worst_frame_psnr_db, found.mean_frame_psnr_db) == (None,) * 4
    assert (found.ssim, found.flicker) == (1.0, 0.0)


def test_a_constant_error_has_the_psnr_of_the_formula_and_no_flicker() -> None:
    found = compare(CLIP, CLIP + 10)
    by_hand = 20 * np.log10(255 / 10)
    assert found.psnr_db == pytest.approx(by_hand)
    assert found.mean_frame_psnr_db == pytest.approx(by_hand)
    assert found.flicker == 0
    assert 0 < found.ssim < 1


def test_the_worst_frame_is_named() -> None:
    frames = CLIP.copy()
    frames[1] += 2
    frames[3] += 20
    found = compare(CLIP, frames)
    assert found.worst_frame == 3
    assert found.worst_frame_psnr_db == pytest.approx(20 * np.log10(255 / 20))
    # Two of five frames differ; equal ones have no finite PSNR and are left out of the mean.
    assert found.mean_frame_psnr_db == pytest.approx((20 * np.log10(255 / 20) + 20 * np.log10(255 / 2)) / 2)
    assert found.psnr_db == pytest.approx(10 * np.log10(255**2 / ((4 + 400) / 5)))


def test_an_error_that_comes_and_goes_flickers() -> None:
    frames = CLIP.copy()
    frames[1::2] += 10
    assert compare(CLIP, frames).flicker == pytest.approx(10)


def test_one_tiny_frame_is_compared_too() -> None:
    found = compare(CLIP[:1, :4, :4], CLIP[:1, :4, :4] + 1)
    assert (found.flicker, found.identical) == (0, False)


def test_clips_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="can't be compared"):
        compare(CLIP, CLIP[:4])
