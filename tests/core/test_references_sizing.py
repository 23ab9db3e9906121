"""Sizes and resampling of references: properties that hold for every picture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kleinod_pure.references.resample import resize
from kleinod_pure.references.sizing import (
    AUTO,
    EACH,
    MAX_SIDE,
    MEGAPIXEL,
    NATIVE,
    POLICIES,
    TOTAL,
    SizePlan,
    plan_sizes,
    share_budget,
)
from PIL import Image

SIDES = st.integers(64, 9000)
SIZES = st.tuples(SIDES, SIDES).filter(lambda size: max(size) <= 8 * min(size))
BUDGETS = st.floats(0.5, 16)


def plan(sizes: list[tuple[int, int]], policy: str = AUTO, megapixels: float = 1.0) -> list[SizePlan]:
    return plan_sizes(sizes, policy, megapixels, [f"image_{n}" for n in range(1, len(sizes) + 1)])


def area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


@given(st.lists(SIZES, min_size=1, max_size=4), st.sampled_from(POLICIES), BUDGETS)
def test_what_every_fit_keeps(sizes: list[tuple[int, int]], policy: str, megapixels: float) -> None:
    """Whole cells, never larger, one even scale, the centre stays, less than a cell lost on one axis only."""
    for size, fit in zip(sizes, plan(sizes, policy, megapixels), strict=True):
        left, top, right, bottom = fit.shown
        scales = fit.used[0] / (right - left), fit.used[1] / (bottom - top)
        assert fit.given == size
        assert all(side % 16 == 0 and side >= 64 for side in fit.used)
        assert math.isclose(scales[0], scales[1], rel_tol=1e-9) and scales[0] <= 1
        assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
        whole_pixel = 0.5 if scales[0] == 1 else 1e-6
        assert abs((left + right) - size[0]) / 2 <= whole_pixel
        assert abs((top + bottom) - size[1]) / 2 <= whole_pixel
        lost = [
            (whole - part) * scales[0] for whole, part in zip(size, (right - left, bottom - top), strict=True)
        ]
        assert max(lost) < 16 + 1e-6
        if policy != NATIVE and scales[0] < 1:
            assert min(lost) < 1e-6


@given(st.lists(SIZES, min_size=1, max_size=6), BUDGETS)
def test_limits_of_each_policy(sizes: list[tuple[int, int]], megapixels: float) -> None:
    auto = [area(fit.used) for fit in plan(sizes)]
    assert all(pixels <= (2024**2 if len(sizes) == 1 else 1024**2) for pixels in auto)
    assert all(area(fit.used) <= megapixels * MEGAPIXEL for fit in plan(sizes, EACH, megapixels))
    assert sum(area(fit.used) for fit in plan(sizes, TOTAL, megapixels)) <= megapixels * MEGAPIXEL
    for policy in (AUTO, TOTAL, EACH):
        assert all(max(fit.used) <= MAX_SIDE for fit in plan(sizes, policy, megapixels))


@given(SIZES, st.floats(0.5, 4))
def test_no_resolution_is_given_away(size: tuple[int, int], megapixels: float) -> None:
    """One more cell on both axes would break the limit, or be larger than the picture."""
    (fit,) = plan([size], EACH, megapixels)
    scale = min(1, math.sqrt(megapixels * MEGAPIXEL / area(size)), MAX_SIDE / max(size))
    assert all(side * scale - used < 16 + 1e-5 for side, used in zip(size, fit.used, strict=True))


@given(st.lists(st.integers(1, 10**7), min_size=1, max_size=10), st.integers(1, 10**7))
def test_a_budget_is_shared_fairly_and_wholly(pixels: list[int], budget: int) -> None:
    share = share_budget(pixels, budget)
    used = sum(min(own, share) for own in pixels)
    assert used <= budget * (1 + 1e-9)
    if sum(pixels) > budget:
        assert math.isclose(used, budget, rel_tol=1e-9)
    else:
        assert share == math.inf


def test_small_pictures_leave_their_share_to_large_ones() -> None:
    small, large = plan([(256, 256), (4096, 4096)], TOTAL, 1.0)
    assert small.given == small.used
    assert area(large.used) > 0.9 * (MEGAPIXEL - 256 * 256)


@pytest.mark.parametrize(
    ("size", "policy", "megapixels", "used"),
    [
        ((2024, 2024), AUTO, 1, (2016, 2016)),
        ((4096, 4096), AUTO, 1, (2016, 2016)),
        ((1024, 1024), AUTO, 1, (1024, 1024)),
        ((3000, 3000), EACH, 1, (1024, 1024)),
        ((1000, 1000), AUTO, 1, (992, 992)),
        ((1023, 767), NATIVE, 1, (1008, 752)),
        ((6000, 4000), AUTO, 1, (2048, 1360)),
        ((6000, 4000), NATIVE, 1, (6000, 4000)),
        ((64, 512), AUTO, 1, (64, 512)),
    ],
)
def test_examples(size, policy, megapixels, used) -> None:
    assert plan([size], policy, megapixels)[0].used == used


def test_several_are_smaller_than_one() -> None:
    assert [fit.used for fit in plan([(4096, 4096), (1600, 900)])] == [(1024, 1024), (1360, 768)]


@pytest.mark.parametrize(
    ("sizes", "policy", "megapixels", "words"),
    [
        ([(512, 512), (63, 200)], AUTO, 1, "image_2 is 63x200, but both sides"),
        ([(64, 513)], AUTO, 1, "one side is over 8 times the other"),
        ([(8000, 1000)], EACH, 0.02, "raise megapixels"),
        ([(512, 512)], EACH, 0, "megapixels is 0"),
        ([(512, 512)], TOTAL, float("nan"), "megapixels is nan"),
        ([(512, 512)], "huge", 1, "size is 'huge'"),
    ],
)
def test_errors_are_sentences(sizes, policy, megapixels, words) -> None:
    with pytest.raises(ValueError, match=words):
        plan(sizes, policy, megapixels)


# --- Resampling

PICTURES = st.tuples(st.integers(20, 90), st.integers(20, 90), st.integers(0, 2**31))


def noise(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.rand(rows, columns, 3, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(PICTURES, st.floats(0, 5), st.floats(0, 5), st.integers(8, 20), st.integers(8, 20))
def test_equals_pillow(shape, left: float, top: float, width: int, height: int) -> None:
    picture = noise(*shape)
    rows, columns = picture.shape[:2]
    box = (left, top, columns - 1.25, rows - left / 8)
    expected = [
        np.asarray(Image.fromarray(picture[..., c].numpy()).resize((width, height), Image.LANCZOS, box=box))
        for c in range(3)
    ]
    made = resize(picture, box, (width, height)).numpy()
    assert np.abs(made - np.stack(expected, axis=-1).clip(0, 1)).max() < 2e-6


@settings(max_examples=25, deadline=None)
@given(PICTURES)
def test_mirrored_in_mirrored_out(shape) -> None:
    """A filter that shifts by any part of a pixel is caught by its own mirror image."""
    picture = noise(*shape)
    rows, columns = picture.shape[:2]
    box, size = (1.5, 0.0, columns - 1.5, float(rows)), (16, 16)
    made = resize(picture, box, size)
    mirrored = resize(picture.flip(0, 1), box, size).flip(0, 1)
    assert (made - mirrored).abs().max() < 1e-6


@given(st.floats(0, 1))
def test_a_flat_picture_stays_flat(shade: float) -> None:
    made = resize(torch.full((70, 50, 3), shade), (0.0, 2.5, 50.0, 67.5), (32, 16))
    assert (made - shade).abs().max() < 1e-6


def test_values_between_8_bit_steps_survive() -> None:
    ramp = torch.linspace(0.5, 0.502, 640).view(1, -1, 1).expand(64, -1, 3)
    made = resize(ramp, (0.0, 0.0, 640.0, 64.0), (320, 32))
    assert len(made[0, :, 0].unique()) > 250


def test_hard_edges_do_not_leave_the_range() -> None:
    checks = (torch.arange(64) % 8 < 4).float().view(1, -1, 1).expand(64, -1, 3)
    made = resize(checks, (0.0, 0.0, 64.0, 64.0), (48, 48))
    assert made.min() >= 0 and made.max() <= 1
