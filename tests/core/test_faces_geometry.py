"""Crops around faces: inside the picture, whole cells, one exact scale, the face in them; and back."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kleinod_pure.base.flux2 import CELL
from kleinod_pure.regions.blend import blend, cut_out, fit_back
from kleinod_pure.regions.geometry import MAX_TARGET, Crop, grow_box, intersects, plan_crop

SIZES = (128, 512, 1024, 2048)


@st.composite
def scenes(draw):
    """(picture (width, height), face box inside it)."""
    width, height = draw(st.integers(48, 4000)), draw(st.integers(48, 4000))
    x0 = draw(st.floats(0, width - 9))
    y0 = draw(st.floats(0, height - 9))
    x1 = draw(st.floats(x0 + 8, width))
    y1 = draw(st.floats(y0 + 8, height))
    return (width, height), (x0, y0, x1, y1)


crops = st.builds(
    lambda scene, size, context, most, margin: (
        scene,
        size,
        most,
        plan_crop(scene[1], grow_box(scene[1], margin), scene[0], size, context, most),
    ),
    scenes(),
    st.sampled_from(SIZES),
    st.floats(1.2, 6),
    st.floats(1, 16),
    st.floats(0, 40),
)


@given(crops)
@settings(max_examples=150)
def test_a_crop_is_inside_unstretched_and_of_whole_cells(planned) -> None:
    (picture, _), size, most, crop = planned
    if crop is None:
        return
    left, top, right, bottom = crop.box
    assert 0 <= left < right <= picture[0] and 0 <= top < bottom <= picture[1]
    assert crop.target_width % CELL == 0 and crop.target_height % CELL == 0
    assert Fraction(crop.target_width, crop.width) == Fraction(crop.target_height, crop.height) == crop.scale
    assert crop.scale <= Fraction(most).limit_denominator(10**6) + Fraction(1, 10**5)
    assert max(crop.target) <= max(size, MAX_TARGET)
    # What was asked for may have been larger than the crop that whole cells then left of it.
    assert crop.scale >= 1 or max(picture) > MAX_TARGET


@given(crops)
@settings(max_examples=150)
def test_the_face_lies_in_its_crop(planned) -> None:
    """Whole, unless it nearly fills the picture: then a crop of whole cells loses a cell or two, and of a
    strip up to 6% of its length, where no two numbers of cells stand in its proportions.
    """
    (picture, face), _, _, crop = planned
    if crop is None:
        return
    lost = max(crop.left - face[0], crop.top - face[1], face[2] - crop.box[2], face[3] - crop.box[3])
    assert lost <= max(2 * CELL, 0.06 * max(picture))
    room = min(crop.width - (face[2] - face[0]), crop.height - (face[3] - face[1]))
    assert lost <= 1e-6 or room < CELL


def test_a_small_picture_is_not_cut_where_a_smaller_crop_of_whole_cells_fits() -> None:
    """It had lost 60 of 171 rows: the pair of cell counts that fits had been tried at one size only."""
    crop = plan_crop((119, 0, 143, 171), (110, 0, 152, 171), (301, 171), 768, 2.0, 1.02)
    assert crop.height >= 160 and crop.scale >= 1


def test_an_ordinary_face_gets_a_square_of_the_asked_size() -> None:
    crop = plan_crop((400, 300, 500, 420), (380, 280, 520, 440), (1600, 1200), 1024, context=2.0)
    assert (crop.width, crop.height) == (240, 240)
    assert crop.target == (1024, 1024)
    assert crop.box == (330, 240, 570, 480)


@pytest.mark.parametrize(
    ("face", "left", "top"),
    [((0, 0, 100, 100), 0, 0), ((900, 700, 1000, 800), 800, 600), ((0, 350, 100, 450), 0, 300)],
)
def test_at_the_edge_the_crop_slides_inside_and_keeps_its_size(face, left: int, top: int) -> None:
    crop = plan_crop(face, face, (1000, 800), 512, context=2.0)
    assert (crop.left, crop.top, crop.width, crop.height) == (left, top, 200, 200)


def test_a_large_face_is_painted_as_it_is_and_a_huge_one_no_larger_than_2048() -> None:
    large = plan_crop((100, 100, 900, 900), (100, 100, 900, 900), (3000, 3000), 512, context=2.0)
    assert large.scale == 1 and large.width == 1600
    huge = plan_crop((100, 100, 2900, 2900), (100, 100, 2900, 2900), (6000, 6000), 1024, context=2.0)
    assert huge.target == (2048, 2048) and huge.width == 5600


def test_a_small_face_is_enlarged_up_to_the_cap_and_a_tiny_one_not_at_all() -> None:
    small = plan_crop((100, 100, 120, 120), (100, 100, 120, 120), (800, 600), 1024, 2.0, max_upscale=8)
    assert small.width == 40 and small.target == (320, 320)
    assert plan_crop((100, 100, 103, 103), (100, 100, 103, 103), (800, 600), 1024, 2.0, 8) is None


def test_where_there_is_no_room_for_a_square_it_is_a_rectangle() -> None:
    crop = plan_crop((500, 10, 650, 190), (480, 0, 670, 200), (1600, 203), 1024, context=3.0)
    assert crop.height >= 190 and crop.width > 2 * crop.height
    assert crop.scale > 1


def test_a_stretching_or_odd_crop_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="stretched"):
        Crop(0, 0, 100, 101, 128, 128)
    with pytest.raises(ValueError, match="multiples of 16"):
        Crop(0, 0, 100, 100, 120, 120)
    with pytest.raises(ValueError, match="inside the picture"):
        Crop(-1, 0, 128, 128, 128, 128)


def test_boxes_that_share_an_edge_do_not_intersects() -> None:
    for beside in ((10, 0, 20, 10), (-10, 0, 0, 10), (0, 10, 10, 20), (0, -10, 10, 0)):
        assert not intersects((0, 0, 10, 10), beside)
    assert intersects((0, 0, 10, 10), (9.5, 9.5, 20, 20))


def ramps(height: int, width: int) -> torch.Tensor:
    """Colours that tell where they are: red rises to the right, green downwards."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([x, y, (x + y) / 2], dim=-1)


@pytest.mark.parametrize("crop", [Crop(40, 30, 60, 60, 256, 256), Crop(100, 80, 90, 45, 256, 128)])
def test_out_and_back_stays_in_place(crop: Crop) -> None:
    """On a ramp a shift of half a pixel would already show as an error of half a step."""
    picture = ramps(200, 240)
    back = fit_back(cut_out(picture, crop), crop)
    rows, columns = crop.region
    inner = (slice(4, -4), slice(4, -4))
    assert (back[inner] - picture[rows, columns][inner]).abs().max() < 0.05 / 240


def test_at_scale_one_out_and_back_is_exact() -> None:
    picture = torch.rand(100, 120, 3)
    crop = Crop(20, 10, 64, 80, 64, 80)
    rows, columns = crop.region
    assert torch.equal(fit_back(cut_out(picture, crop), crop), picture[rows, columns])


def test_a_painting_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="flux2-vae"):
        fit_back(torch.rand(240, 256, 3), Crop(0, 0, 64, 64, 256, 256))


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 4]))
@settings(max_examples=40)
def test_blending_leaves_every_bit_outside_the_mask(seed: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    picture = torch.rand(60, 70, channels, generator=generator)
    painted = torch.rand(32, 32, 3, generator=generator)
    mask = torch.rand(32, 32, generator=generator) * (torch.rand(32, 32, generator=generator) > 0.5)
    crop = Crop(20, 10, 32, 32, 64, 64)
    before = picture.clone()
    blend(picture, painted, mask, crop)
    touched = torch.zeros(60, 70, dtype=torch.bool)
    touched[crop.region] = mask > 0
    assert torch.equal(picture[~touched], before[~touched])
    assert torch.equal(picture[..., 3:], before[..., 3:])
    region = picture[crop.region][..., :3]
    assert torch.equal(region[mask == 1], painted[mask == 1])
    low = torch.minimum(before[crop.region][..., :3], painted)
    high = torch.maximum(before[crop.region][..., :3], painted)
    assert ((region >= low - 1e-6) & (region <= high + 1e-6)).all()
