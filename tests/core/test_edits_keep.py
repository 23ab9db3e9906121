"""Klein Keep on pictures whose fault is known: moved by a spline of order 5, tinted, compressed, patched.

The pictures are made here; photographs are in tests/detectors/test_keep_photographs.py and `bench edits`.
"""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from kleinod_pure.base.errors import ArtistError
from kleinod_pure.edits.changes import find_changes
from kleinod_pure.edits.keep import AS_IT_IS, KeepSettings, Kept, keep
from kleinod_pure.edits.registration import move_back, register
from kleinod_pure.edits.report import describe, headline
from kleinod_pure.edits.tint import apply_tint, delta_e, fit_tint, to_lab, undo_tint
from PIL import Image
from scipy import ndimage

SIDE = 192


def draw(seed: int, height: int = SIDE, width: int = SIDE + 32) -> np.ndarray:
    """A picture of blobs at many scales, as natural ones are: [H, W, 3] in 0..1."""
    rng = np.random.default_rng(seed)
    planes = [
        ndimage.gaussian_filter(rng.standard_normal((height, width, 3)), (sigma, sigma, 0)) * sigma
        for sigma in (1.5, 4, 12, 30)
    ]
    picture = sum(planes)
    return ((picture - picture.min()) / (picture.max() - picture.min())) * 0.9 + 0.05


def spoil(
    picture: np.ndarray,
    scale: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0),
    offset: float = 0.0,
    quality: int | None = None,
) -> np.ndarray:
    """What an edit model does to the whole of a picture. Shares no code with the registration."""
    height, width, _ = picture.shape
    y, x = np.mgrid[0:height, 0:width].astype(float)
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    at_x = (x - middle_x - shift[0]) / scale + middle_x
    at_y = (y - middle_y - shift[1]) / scale + middle_y
    moved = [
        ndimage.map_coordinates(picture[..., c], [at_y, at_x], order=5, mode="reflect") for c in range(3)
    ]
    spoilt = (np.stack(moved, -1) * gain + offset).clip(0, 1)
    if quality is None:
        return spoilt
    stream = io.BytesIO()
    Image.fromarray((spoilt * 255 + 0.5).astype(np.uint8)).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream), float) / 255


def as_image(picture: np.ndarray) -> torch.Tensor:
    return torch.tensor(picture, dtype=torch.float32)


def run(
    original: np.ndarray, edited: np.ndarray, mask: torch.Tensor | None = None, **settings: object
) -> Kept:
    return keep(as_image(original), as_image(edited), mask, KeepSettings(**settings))


FAULTS = [
    {"scale": 1.012, "shift": (2.7, -1.4), "gain": (1.04, 1.0, 0.93), "offset": 0.01},
    {"scale": 0.985, "shift": (-3.6, 3.9), "gain": (0.97, 1.02, 1.0), "quality": 85},
    {"shift": (0.3, 0.0), "quality": 92},
    {"scale": 1.02, "offset": -0.03},
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_shift_is_found_to_a_tenth_of_a_pixel(fault: dict) -> None:
    picture = draw(1)
    place = register(as_image(picture), as_image(spoil(picture, **fault)))
    shift, scale = fault.get("shift", (0.0, 0.0)), fault.get("scale", 1.0)
    assert math.hypot(place.shift[0] - shift[0], place.shift[1] - shift[1]) < 0.1
    assert (
        max(abs(s - scale) * side / 2 for s, side in zip(place.scale, picture.shape[1::-1], strict=True))
        < 0.1
    )
    assert place.found > 0.9 and place.doubt < 0.1


@pytest.mark.parametrize("fault", FAULTS)
def test_a_patch_is_found_and_the_rest_is_kept_bit_for_bit(fault: dict) -> None:
    picture, other = draw(2), draw(3)
    y, x = np.mgrid[0:SIDE, 0 : SIDE + 32]
    patch = ((x - 90) / 40) ** 2 + ((y - 100) / 32) ** 2 < 1
    changed = np.where(patch[..., None], other * 0.5 + (0.45, 0.0, 0.25), picture)
    kept = run(picture, spoil(changed, **fault), grow=0, feather=0)
    found = kept.mask.numpy() > 0
    assert (found & patch).sum() / (found | patch).sum() > 0.9
    assert torch.equal(kept.picture[~(kept.mask > 0)], as_image(picture)[~(kept.mask > 0)])
    assert float(delta_e(kept.picture, as_image(picture))[torch.tensor(~patch)].mean()) < 0.5
    # Inside stands the edit, at its place and in the original's colours.
    core = torch.tensor(ndimage.binary_erosion(patch, iterations=4))
    assert float(delta_e(kept.picture, as_image(changed))[core].mean()) < 4


@pytest.mark.parametrize("fault", [{}, *FAULTS])
def test_no_change_gives_the_original_back(fault: dict) -> None:
    picture = draw(4)
    kept = run(picture, spoil(picture, **fault))
    assert kept.refusal == "" and kept.share == 0
    assert torch.equal(kept.picture, as_image(picture))


def gradient() -> np.ndarray:
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    return np.stack([x, y, 1 - x], -1)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (SIDE, SIDE, 3))


def nine_tenths_changed() -> np.ndarray:
    changed = draw(5)
    changed[: SIDE * 9 // 10] = draw(6)[: SIDE * 9 // 10]
    return changed


@pytest.mark.parametrize(
    ("original", "edited", "word"),
    [
        (gradient(), spoil(gradient(), shift=(3, 1)), "too little detail"),
        (np.full((SIDE, SIDE, 3), 0.5), np.full((SIDE, SIDE, 3), 0.6), "too little detail"),
        (noise(1), noise(2), "found again"),
        (draw(5), draw(6), "found again"),
        (draw(5), nine_tenths_changed(), "found again"),
    ],
)
def test_what_cannot_be_measured_is_said_and_nothing_is_done(
    original: np.ndarray, edited: np.ndarray, word: str
) -> None:
    kept = run(original, edited)
    assert word in kept.refusal and kept.refusal in headline([kept]) and kept.refusal in describe([kept])
    assert torch.equal(kept.picture, as_image(edited))
    assert bool((kept.mask == 1).all())


def test_a_mask_is_obeyed_and_not_mistaken_for_movement() -> None:
    picture = draw(7)
    mask = torch.zeros(SIDE, SIDE + 32)
    mask[40:150, 50:180] = 1
    changed = picture.copy()
    changed[40:150, 50:180] = draw(8)[40:150, 50:180]
    kept = run(picture, spoil(changed, **FAULTS[0]), mask)
    assert kept.refusal == ""
    assert torch.equal(kept.picture[mask == 0], as_image(picture)[mask == 0])
    assert torch.equal(kept.mask > 0, mask > 0)
    assert abs(kept.place.shift[0] - 2.7) < 0.1


def test_an_empty_mask_changes_nothing_and_a_soft_one_blends() -> None:
    picture, edited = draw(9), spoil(draw(9), offset=0.1)
    assert torch.equal(run(picture, edited, torch.zeros(SIDE, SIDE + 32)).picture, as_image(picture))
    half = torch.full((SIDE, SIDE + 32), 0.5)
    half[:, :100] = 0
    kept = run(picture, edited, half, place=AS_IT_IS, colour_match=0.0)
    expected = (as_image(picture) + as_image(edited)) / 2
    assert torch.allclose(kept.picture[:, 100:], expected[:, 100:], atol=1e-5)


def test_alpha_and_sixteen_bits_stay() -> None:
    picture = draw(10)
    rgba = np.concatenate([picture, np.full((*picture.shape[:2], 1), 0.123456)], -1)
    changed = picture.copy()
    changed[60:120, 60:120] = (0.9, 0.1, 0.1)
    kept = run(rgba, spoil(changed, **FAULTS[0]))
    outside = kept.mask == 0
    assert 0 < kept.share < 0.3
    assert torch.equal(kept.picture[outside], as_image(rgba)[outside])
    assert torch.equal(kept.picture[..., 3], as_image(rgba)[..., 3])


def test_an_edit_of_another_size_comes_back_in_the_originals() -> None:
    picture = draw(11)
    changed = picture.copy()
    changed[60:120, 60:120] = (0.9, 0.1, 0.1)
    enlarged = ndimage.zoom(changed, (2, 2, 1), order=3, grid_mode=True, mode="nearest").clip(0, 1)
    kept = run(picture, enlarged)
    assert kept.picture.shape == picture.shape and kept.refusal == ""
    assert kept.place.displacement(SIDE + 32, SIDE) < 0.1
    assert float((kept.mask[60:120, 60:120] > 0).float().mean()) > 0.98


@pytest.mark.parametrize(
    ("shape", "word"), [((SIDE, SIDE * 2, 3), "proportions"), ((32, 48, 3), "64 pixels or more")]
)
def test_what_cannot_belong_together_is_refused(shape: tuple[int, int, int], word: str) -> None:
    with pytest.raises(ArtistError, match=word):
        run(draw(12), np.zeros(shape))


def test_sensitivity_decides_what_counts() -> None:
    picture = draw(13)
    changed = picture.copy()
    changed[60:120, 60:120] = (changed[60:120, 60:120] + 0.02).clip(0, 1)
    bold, timid = run(picture, changed, sensitivity=4.0), run(picture, changed, sensitivity=0.25)
    assert timid.share == 0 < bold.share < 0.3


def test_feather_runs_from_one_to_nothing_within_grow() -> None:
    picture = draw(14)
    changed = picture.copy()
    changed[80:120, 80:120] = (0.9, 0.1, 0.1)
    kept = run(picture, changed, grow=12, feather=8)
    row = kept.mask[100, 120:140]
    assert float(row[0]) == 1 and float(row[-1]) == 0
    assert bool((row.diff() <= 0).all()) and 0 < float(row[8]) < 1


def test_lab_and_delta_e_are_those_of_the_standard() -> None:
    """White, mid grey, and sRGB red, green, blue of CIE 15 / IEC 61966-2-1 (values: colour-science)."""
    colours = torch.tensor([[1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    expected = torch.tensor(
        [
            [100, 0, 0],
            [53.389, 0, 0],
            [53.241, 80.093, 67.203],
            [87.735, -86.183, 83.179],
            [32.297, 79.188, -107.860],
        ]
    )
    assert torch.allclose(to_lab(colours), expected, atol=0.02)
    assert float(delta_e(colours[:1], colours[1:2])) == pytest.approx(46.61, abs=0.02)


def test_a_tint_is_fitted_past_what_changed_and_undone_both_ways() -> None:
    picture = as_image(draw(15))
    tinted = (picture @ torch.tensor([[0.97, 0.02, 0], [0.01, 0.98, 0.03], [0, 0.02, 0.9]]) + 0.02).clamp(
        0, 1
    )
    tinted[:60] = 0.5
    tint = fit_tint(tinted, picture, torch.ones(picture.shape[:2], dtype=torch.bool))
    assert float((apply_tint(tinted, tint) - picture)[60:].abs().max()) < 0.01
    assert float((undo_tint(picture, tint) - tinted)[60:].abs().max()) < 0.01
    few = torch.zeros(picture.shape[:2], dtype=torch.bool)
    assert fit_tint(tinted, picture, few) is None


def test_colours_moved_too_far_are_no_tint() -> None:
    everywhere = torch.ones((SIDE, SIDE + 32), dtype=torch.bool)
    picture = as_image(draw(17)) * 0.5
    assert fit_tint(picture + 0.2, picture, everywhere) is not None
    assert fit_tint(picture + 0.3, picture, everywhere) is None


def test_what_lies_outside_the_edit_is_no_change() -> None:
    picture = as_image(draw(16))
    place = register(picture, as_image(spoil(draw(16), shift=(4, 0))))
    moved, shown = move_back(as_image(spoil(draw(16), shift=(4, 0))), place)
    assert not bool(shown[:, -3:].any()) and bool(shown[:, : SIDE - 8].all())
    moved[:, -3:] = 0
    assert find_changes(picture, moved, shown).share == 0
