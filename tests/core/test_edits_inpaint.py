"""Plans of Klein Inpaint and Klein Outpaint: crops of one exact scale, parts of masks, canvases, fills."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import pytest
import torch
from kleinod_pure.base.errors import ArtistError
from kleinod_pure.base.flux2 import CELL
from kleinod_pure.edits.canvas import (
    ANCHORS,
    ASPECTS,
    FILLS,
    Canvas,
    OutpaintRequest,
    draw_overlap,
    fill_canvas,
    plan_canvas,
    plan_outpaint,
)
from kleinod_pure.edits.paint_report import headline, write_report
from kleinod_pure.edits.parts import APART, AUTOMATIC, MAX_PARTS, TOGETHER, find_parts
from kleinod_pure.edits.plan import plan_inpaint
from kleinod_pure.edits.request import InpaintRequest
from kleinod_pure.regions.blend import hide_masked
from kleinod_pure.regions.components import resize_masks
from kleinod_pure.regions.geometry import plan_area
from kleinod_pure.regions.prompt_lines import PromptLines
from kleinod_pure.regions.result import Painted

PICTURE = 320, 200
MEGAPIXEL = 1e6


def mark(*boxes: tuple[int, int, int, int], size: tuple[int, int] = PICTURE) -> torch.Tensor:
    mask = torch.zeros(size[1], size[0])
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = 1
    return mask


def request(**change) -> InpaintRequest:
    return InpaintRequest(**{"edge_unit": "pixels", "grow": 8, "feather": 8, **change})


# --- crops


def test_an_area_is_shown_whole_at_one_exact_scale_and_about_the_pixels_asked() -> None:
    rng = random.Random(5)
    for _ in range(400):
        picture = rng.randint(20, 5000), rng.randint(20, 5000)
        x0, y0 = rng.randrange(picture[0]), rng.randrange(picture[1])
        wanted = x0, y0, rng.randint(x0 + 1, picture[0]), rng.randint(y0 + 1, picture[1])
        pixels = rng.choice([16384, 250_000, 1e6, 4e6])
        crop = plan_area(wanted, picture, pixels, 4.0)
        left, top, right, bottom = crop.box
        assert left <= wanted[0] and top <= wanted[1] and right >= wanted[2] and bottom >= wanted[3]
        assert Fraction(crop.target_width, crop.width) == Fraction(crop.target_height, crop.height)
        assert crop.target_width % CELL == crop.target_height % CELL == 0
        assert crop.scale <= 4
        shape = max(crop.width / crop.height, crop.height / crop.width)
        painted = crop.target_width * crop.target_height
        least = 64 * max(64, 64 * shape) * 1.3  # a side is never painted below 64
        assert painted <= max(1.45 * pixels, least)
        asked = (wanted[2] - wanted[0]) * (wanted[3] - wanted[1])
        if crop.scale < 3.5:
            assert painted >= 0.55 * pixels or asked * 16 < pixels


@pytest.mark.parametrize("picture", [(1920, 1080), (1023, 767), (4000, 3000), (641, 481)])
def test_the_whole_picture_hardly_needs_more_than_there_is(picture: tuple[int, int]) -> None:
    crop = plan_area((0, 0, *picture), picture, MEGAPIXEL, 1.0)
    assert crop.left == crop.top == 0
    assert 0 <= crop.width - picture[0] < max(CELL, 0.02 * picture[0])
    assert 0 <= crop.height - picture[1] < max(CELL, 0.02 * picture[1])
    assert crop.scale <= 1


def test_a_crop_of_about_the_size_is_not_resampled() -> None:
    assert plan_area((0, 0, 1000, 1000), (1600, 1600), MEGAPIXEL, 4.0).scale == 1
    assert plan_area((0, 0, 500, 500), (1600, 1600), MEGAPIXEL, 4.0).scale > 1.9
    assert plan_area((0, 0, 3000, 3000), (3200, 3200), MEGAPIXEL, 4.0).scale < 0.4


# --- parts


def test_parts_come_from_left_to_right_in_their_own_boxes() -> None:
    mask = mark((200, 10, 240, 50), (20, 100, 60, 160))
    first, second = find_parts(mask, APART)
    assert first.box == (20, 100, 60, 160) and second.box == (200, 10, 240, 50)
    assert first.weights.shape == (60, 40) and bool((first.weights == 1).all())
    (both,) = find_parts(mask, TOGETHER)
    assert both.box == (20, 10, 240, 160) and float(both.weights.sum()) == 40 * 60 + 40 * 40


def test_what_is_near_is_one_and_what_is_far_is_not() -> None:
    letters = [(20 + 30 * i, 50, 40 + 30 * i, 90) for i in range(5)]
    assert len(find_parts(mark(*letters), AUTOMATIC)) == 1
    assert len(find_parts(mark(*letters), APART)) == 5
    assert len(find_parts(mark(*letters, (280, 50, 300, 90)), AUTOMATIC)) == 2


def test_specks_lines_and_textures_are_not_lost() -> None:
    assert [part.box for part in find_parts(mark((7, 9, 8, 10)), AUTOMATIC)] == [(7, 9, 8, 10)]
    assert [part.box for part in find_parts(mark((0, 5, 320, 6)), AUTOMATIC)] == [(0, 5, 320, 6)]
    grid = torch.zeros(200, 320)
    grid[::8, ::8] = 1
    for split in (AUTOMATIC, APART):
        parts = find_parts(grid, split)
        assert len(parts) <= MAX_PARTS and sum(float(part.weights.sum()) for part in parts) == 25 * 40
    assert find_parts(torch.full((200, 320), 0.01), AUTOMATIC) == []


# --- masks


def regions_of(mask: torch.Tensor, **change):
    return plan_inpaint([[mask]], PICTURE, request(**change), MEGAPIXEL).regions


def lay(region) -> torch.Tensor:
    """The composite mask on a picture large enough for its crop."""
    full = torch.zeros(PICTURE[1] + 64, PICTURE[0] + 64)
    full[region.crop.region] = region.masks.composite
    return full[: PICTURE[1], : PICTURE[0]]


@pytest.mark.parametrize(
    "box", [(100, 80, 140, 120), (0, 0, 40, 30), (280, 150, 320, 200), (0, 90, 320, 110)]
)
@pytest.mark.parametrize("area", ["crop", "whole picture"])
def test_all_of_the_mask_is_new_and_beyond_grow_nothing_is(box, area: str) -> None:
    (region,) = regions_of(mark(box), area=area)
    full, inside = lay(region), mark(box) > 0
    assert bool((full[inside] > 0.98).all())
    x0, y0, x1, y1 = box
    y, x = torch.meshgrid(torch.arange(200.0), torch.arange(320.0), indexing="ij")
    by_x = torch.maximum(x0 - x, x - (x1 - 1)).clamp_min(0)
    by_y = torch.maximum(y0 - y, y - (y1 - 1)).clamp_min(0)
    far = torch.hypot(by_x, by_y)
    assert not bool(full[far > 8].any())
    between = full[(far > 1) & (far < 7)]
    assert 0 < float(between.min()) and float(between.max()) < 1
    assert bool((region.masks.denoise >= 0).all()) and float(region.masks.denoise.max()) == 1


def test_everything_and_its_border_are_painted_without_a_frame() -> None:
    for area in ("crop", "whole picture"):
        (region,) = regions_of(mark((0, 0, *PICTURE)), area=area)
        assert bool((lay(region) == 1).all())


def test_a_picture_of_odd_sides_is_painted_up_to_its_last_pixel() -> None:
    for area in ("crop", "whole picture"):
        asked = request(area=area, grow=0)
        plan = plan_inpaint([[torch.ones(101, 203)]], (203, 101), asked, MEGAPIXEL)
        assert min(plan.beyond) > 0
        assert bool((plan.regions[0].masks.composite[:101, :203] == 1).all())


def test_a_soft_mask_stays_as_soft_as_it_is() -> None:
    ramp = torch.zeros(200, 320)
    ramp[50:150, 100:200] = torch.linspace(0.03, 1, 100)[None, :]
    (plain,) = regions_of(ramp, grow=0, feather=0)
    assert torch.equal(lay(plain), ramp)
    (grown,) = regions_of(ramp, grow=6, feather=0)
    assert bool((lay(grown) >= ramp).all()) and not bool(lay(grown)[:40].any())
    (softer,) = regions_of(ramp, grow=0, feather=20)
    assert bool((lay(softer) <= ramp).all()) and float(lay(softer).max()) > 0.7


def test_percent_counts_by_the_side_of_a_square_as_large() -> None:
    (large,) = regions_of(mark((50, 20, 150, 120)), edge_unit="percent of the region", grow=10, feather=0)
    assert float(lay(large)[70, :150].sum()) == 150 - 40
    (line,) = regions_of(mark((20, 100, 300, 104)), edge_unit="percent of the region", grow=10, feather=0)
    assert int((lay(line)[:, 160] > 0).sum()) == 4 + 2 * math.floor(math.sqrt(280 * 4) / 10)


def test_the_crop_shows_context_and_all_that_may_change() -> None:
    for context, grow in ((1.0, 40), (1.5, 0), (3.0, 8)):
        (region,) = regions_of(mark((100, 80, 140, 120)), context=context, grow=grow)
        assert region.crop.width >= max(context * 40, 40 + 2 * grow)
        assert region.crop.width <= max(64, 1.35 * max(context * 40, 1.1 * (40 + 2 * grow)))


def test_regions_have_seeds_and_prompts_of_their_own_and_results_follow() -> None:
    lines = PromptLines.read("\na frog, [PROMPT]\n[SKIP]")
    mask = mark((10, 80, 40, 120), (100, 80, 140, 120), (250, 80, 290, 120))
    plan = plan_inpaint(
        [[mask], [mask]], PICTURE, request(prompts=lines, prompt="at sea", results=2), MEGAPIXEL
    )
    assert [region.picture for region in plan.regions] == [0, 2, 0, 2, 1, 3, 1, 3]
    assert [region.prompt for region in plan.regions][:4] == [None, None, "a frog, at sea", "a frog, at sea"]
    assert plan.left_out == 1, "one mask, looked at once"
    assert len({region.seed for region in plan.regions}) == 8
    single = plan_inpaint(
        [[mask], [mask]], PICTURE, request(prompts=lines, prompt="at sea", seed=1), MEGAPIXEL
    )
    assert [region.seed for region in single.regions] == [region.seed for region in plan.regions[1::2]]


def test_the_hidden_part_is_hidden_and_the_rest_is_shown() -> None:
    crop = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))
    composite = torch.zeros(32, 32)
    composite[8:16, 8:16] = 0.1
    shown = hide_masked(crop, composite)
    assert torch.equal(shown[40:], crop[40:])
    assert float((shown[16:32, 16:32] - shown[20, 20]).abs().max()) == 0
    assert bool((hide_masked(crop, torch.ones(32, 32)) == 0.5).all())


def test_a_line_survives_when_its_mask_is_made_smaller() -> None:
    mask = torch.zeros(1, 1000, 1600)
    mask[0, 501] = 1
    small = resize_masks(mask, PICTURE)
    assert small.shape == (1, 200, 320) and bool((small[0, 100] == 1).all())


# --- outpaint


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"left": 1, "top": 2, "right": 3, "bottom": 4}, (324, 206)),
        ({"extend": "aspect", "aspect": "16:9"}, (356, 200)),
        ({"extend": "aspect", "aspect": "1:1"}, (320, 320)),
        ({"extend": "aspect", "aspect": "9:16"}, (320, 569)),
        ({"extend": "size", "width": 400, "height": 200}, (400, 200)),
    ],
)
def test_sizes_are_those_asked_for(change: dict, expected: tuple[int, int]) -> None:
    assert plan_canvas(PICTURE, OutpaintRequest(**change)).size == expected


def test_every_aspect_holds_the_picture_at_every_anchor() -> None:
    for aspect in ASPECTS:
        across, down = map(int, aspect.split(":"))
        for anchor in ANCHORS:
            canvas = plan_canvas(PICTURE, OutpaintRequest(extend="aspect", aspect=aspect, anchor=anchor))
            assert min(canvas.left, canvas.top, canvas.right, canvas.bottom) >= 0
            assert canvas.size[0] / canvas.size[1] == pytest.approx(across / down, rel=0.005)
            assert "left" not in anchor or canvas.left == 0
            assert "bottom" not in anchor or canvas.bottom == 0


@pytest.mark.parametrize("change", [{"width": 319}, {"height": 199}])
def test_what_would_cut_the_picture_is_refused(change: dict) -> None:
    size = {"width": 400, "height": 400, **change}
    with pytest.raises(ArtistError, match="image is 320x200 already"):
        plan_canvas(PICTURE, OutpaintRequest(extend="size", **size))


def test_too_large_a_canvas_is_refused() -> None:
    with pytest.raises(ArtistError, match="at most 16384 pixels"):
        plan_canvas((16000, 200), OutpaintRequest(right=1000))


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("channels", [3, 4])
def test_the_picture_lies_on_its_canvas_bit_for_bit(fill: str, channels: int) -> None:
    picture = torch.rand(2, 20, 32, channels, generator=torch.Generator().manual_seed(1))
    canvas = Canvas((32, 20), 40, 3, 70, 0)
    made = fill_canvas(picture, canvas, fill, 4)
    assert made.shape == (2, 23, 142, channels)
    assert torch.equal(made[:, 3:, 40:72], picture)
    assert 0 <= float(made.min()) and float(made.max()) <= 1
    assert bool((made[:, :3, :, 3:] == 1).all()), "what is new is opaque"


def test_fills_go_on_from_the_edge() -> None:
    picture = torch.arange(4.0).reshape(1, 1, 4, 1).expand(1, 2, 4, 3) / 10
    canvas = Canvas((4, 2), 2, 0, 8, 0)
    edge, mirror = (fill_canvas(picture, canvas, fill)[0, 0, :, 0] * 10 for fill in FILLS[:2])
    assert edge.round().tolist() == [0, 0, 0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3]
    assert mirror.round().tolist() == [2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1]


def test_the_overlap_is_as_wide_as_said_and_only_where_it_grows() -> None:
    weights = draw_overlap(Canvas((320, 200), 0, 0, 64, 0), 16)
    assert bool((weights[:, 320:] == 1).all()) and not bool(weights[:, : 320 - 16].any())
    inside = weights[100, 304:320]
    assert bool((inside.diff() > 0).all()) and 0 < float(inside[0]) < float(inside[-1]) < 1
    corner = draw_overlap(Canvas((320, 200), 10, 10, 0, 0), 16)
    assert not bool(corner[26:, 26:].any()) and bool((corner[:10] == 1).all())
    assert not bool(draw_overlap(Canvas((320, 200), 0, 0, 64, 0), 0)[:, :320].any())
    tiny = draw_overlap(Canvas((10, 10), 0, 0, 64, 0), 512)
    assert not bool(tiny[:, :5].any())


def test_a_crop_of_a_large_picture_shows_the_new_part_and_as_much_of_the_old() -> None:
    canvas = Canvas((1600, 1200), 0, 0, 200, 0)
    asked = OutpaintRequest(right=200, area="crop", overlap=32)
    (region,) = plan_outpaint(1, canvas, asked, MEGAPIXEL / 5).regions
    left, top, right, bottom = region.crop.box
    assert right >= 1800 and top == 0 and bottom >= 1200 and 960 < left < 1400
    (whole,) = plan_outpaint(1, canvas, OutpaintRequest(right=200), MEGAPIXEL / 5).regions
    assert whole.crop.left == 0 and whole.crop.width >= 1800
    assert "softer" in tell(whole)


def tell(region) -> str:
    from kleinod_pure.edits.plan import EditPlan

    plan, results = EditPlan((region,)), [Painted(region, 1.0)]
    mask = torch.zeros(1, 4, 4)
    assert "1 of 1 region painted, 100.0% of the picture kept" in headline(plan, results, mask)
    return write_report(OutpaintRequest(), plan, results, mask, 1, [], 2.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("strength", 1.5), ("steps", 0), ("context", 0.5), ("grow", -1), ("area", "half"), ("results", 0)],
)
def test_values_out_of_range_are_named(field: str, value: object) -> None:
    with pytest.raises(ArtistError, match=f"{field} is"):
        InpaintRequest(**{field: value})


def test_planning_a_crowd_of_parts_stays_quick() -> None:
    noise = torch.from_numpy((np.random.default_rng(1).random((1000, 1000)) > 0.97).astype(np.float32))
    assert len(find_parts(noise, AUTOMATIC)) == 1
