"""What may be asked for, the size pictures are brought to, and the words for what may not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kleinod_pure.sampling.picture import fit_picture
from kleinod_pure.sampling.request import MAX_SEED, SamplingRequest


def test_defaults_are_the_documented_ones() -> None:
    asked = SamplingRequest()
    assert (asked.width, asked.height, asked.steps, asked.guidance) == (1024, 1024, 28, 4.0)
    assert (asked.scheduler, asked.results, asked.mu) == ("Default", 1, "auto")
    assert (asked.strength, asked.strength_mode) == (0.6, "noise-level")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("width", 112, "width is 112, but must be from 128 to 2048"),
        ("height", 2064, "height is 2064, but must be from 128 to 2048"),
        ("width", 1000, "width is 1000, but must be a multiple of 16: use 992 or 1008"),
        ("steps", 0, "steps is 0, but must be from 1 to 50"),
        ("steps", 51, "steps is 51"),
        ("guidance", 0.9, "guidance is 0.9, but must be from 1 to 20"),
        ("guidance", math.nan, "guidance is nan"),
        ("seed", -1, "seed is -1"),
        ("seed", 2**32, "must be from 0 to 4294967295"),
        ("results", 21, "results is 21, but must be from 1 to 20"),
        ("strength", 1.01, "strength is 1.01"),
        ("mu", "low", "mu is 'low', but must be one of: auto, fixed 2.02, capped above 1 MP"),
        ("strength_mode", "denoise", "strength_mode is 'denoise', but must be one of: noise-level, schedule"),
        ("scheduler", "Eulr", "scheduler is 'Eulr'.*Did you mean Euler"),
    ],
)
def test_refusals_name_the_input_and_the_way_out(field: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SamplingRequest(**{field: value})


@given(st.integers(0, MAX_SEED), st.integers(1, 20))
def test_each_result_has_its_own_seed(seed: int, results: int) -> None:
    seeds = SamplingRequest(seed=seed, results=results).seeds
    assert seeds[0] == seed
    assert len(set(seeds)) == len(seeds) == results
    assert all(0 <= one <= MAX_SEED for one in seeds)


def test_seeds_start_again_after_the_last() -> None:
    assert SamplingRequest(seed=MAX_SEED, results=3).seeds == (MAX_SEED, 0, 1)


def test_strength_counts_only_with_a_picture() -> None:
    asked = SamplingRequest(strength=0.25)
    assert asked.schedule(4096, from_picture=False).start > 0.999999
    assert asked.schedule(4096, from_picture=True).start == 0.25


@given(st.integers(1, 6000), st.integers(1, 6000))
def test_fitted_pictures(width: int, height: int) -> None:
    if max(width, height) > 16 * min(width, height):
        with pytest.raises(ValueError, match=f"image is {width}x{height}: it is too narrow"):
            fit_picture(width, height)
        return
    fit = fit_picture(width, height)
    for given_side, scaled, cropped, offset in zip(
        fit.given, fit.scaled, fit.cropped, fit.offset, strict=True
    ):
        assert cropped % 16 == 0 and 128 <= cropped <= 2048
        assert 0 <= scaled - cropped < 16
        assert offset == (scaled - cropped) // 2
        if 128 <= min(width, height) and max(width, height) <= 2048:
            assert scaled == given_side
    ratios = [side / given_side for side, given_side in zip(fit.scaled, fit.given, strict=True)]
    shortest = min(fit.scaled)
    assert math.isclose(*ratios, rel_tol=1.1 / shortest), "the picture must not be stretched"
    assert (fit.describe() == "") == (fit.cropped == (width, height))


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((512, 512), ""),
        ((250, 264), "The image of 250x264 was cut at its edges to 240x256, multiples of 16."),
        ((4096, 2048), "The image of 4096x2048 was scaled to 2048x1024."),
        (
            (100, 150),
            "The image of 100x150 was scaled to 128x192.",
        ),
        (
            (3000, 1000),
            "The image of 3000x1000 was scaled to 2048x683 and cut at its edges to 2048x672, multiples of "
            "16.",
        ),
    ],
)
def test_what_was_changed_is_told(size: tuple[int, int], words: str) -> None:
    assert fit_picture(*size).describe() == words
