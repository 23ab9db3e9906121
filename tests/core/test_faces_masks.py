"""What may be painted and what is blended in: soft ovals, outlines, generous cells, the ring's colours."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kleinod_pure.base.flux2 import CELL
from kleinod_pure.base.values import MASK_PERCENT, FaceRefinement
from kleinod_pure.faces.detection import Face
from kleinod_pure.faces.shapes import edge_of, shape_of
from kleinod_pure.regions.colour import match_colours
from kleinod_pure.regions.geometry import Crop, longer_side, plan_crop
from kleinod_pure.regions.masks import MaskEdge, Masks, draw_masks, reach_of

PICTURE = (400, 320)


def draw(face: Face, crop: Crop, edge: MaskEdge) -> Masks:
    return draw_masks(shape_of(face, crop), longer_side(face.box), crop, edge, PICTURE)


def masks_of(face: Face, edge: MaskEdge, size: int = 256, context: float = 2.0):
    crop = plan_crop(face.box, reach_of(face.box, edge), PICTURE, size, context)
    return crop, draw(face, crop, edge)


faces = st.builds(
    lambda x, y, w, h: Face((x, y, min(x + w, 400), min(y + h, 320))),
    st.floats(0, 370),
    st.floats(0, 290),
    st.floats(24, 200),
    st.floats(24, 200),
)
edges = st.builds(MaskEdge, st.floats(0, 20), st.floats(0, 100))


@given(faces, edges)
@settings(max_examples=30, deadline=None)
def test_masks_are_soft_shares_and_the_model_paints_wherever_one_is_blended(face, edge) -> None:
    crop, masks = masks_of(face, edge)
    assert masks.composite.shape == (crop.height, crop.width)
    assert masks.denoise.shape == (crop.target_height // CELL, crop.target_width // CELL)
    for mask in (masks.composite, masks.denoise):
        assert mask.dtype == torch.float32 and 0 <= float(mask.min()) and float(mask.max()) <= 1
    assert float(masks.composite.max()) > 0.99, "nowhere does the new face count fully"
    scale = float(crop.scale)
    rows, columns = torch.nonzero(masks.composite, as_tuple=True)
    for edge in (1e-3, 1 - 1e-3):
        cells = masks.denoise[((rows + edge) * scale / CELL).long(), ((columns + edge) * scale / CELL).long()]
        assert float(cells.min()) == 1
    assert not bool((masks.ring & (masks.composite > 0)).any())


@given(faces, edges)
@settings(max_examples=30, deadline=None)
def test_nothing_changes_beyond_the_padding(face, edge) -> None:
    crop, masks = masks_of(face, edge)
    rows, columns = torch.nonzero(masks.composite, as_tuple=True)
    slack = edge.padding + 1
    assert (
        columns.min() + crop.left >= face.box[0] - slack and columns.max() + crop.left < face.box[2] + slack
    )
    assert rows.min() + crop.top >= face.box[1] - slack and rows.max() + crop.top < face.box[3] + slack


@given(faces, edges)
@settings(max_examples=30, deadline=None)
def test_a_crop_never_shows_its_own_edge(face, edge) -> None:
    """Where the crop ends inside the picture the mask has faded; where the picture ends it need not."""
    crop, masks = masks_of(face, MaskEdge(edge.padding, max(4.0, edge.blur)))
    sides = (
        (crop.left > 0, masks.composite[:, 0]),
        (crop.top > 0, masks.composite[0]),
        (crop.box[2] < PICTURE[0], masks.composite[:, -1]),
        (crop.box[3] < PICTURE[1], masks.composite[-1]),
    )
    for inside, border in sides:
        assert not inside or float(border.max()) < 0.2


def test_a_crop_too_small_for_its_face_fades_at_all_its_sides() -> None:
    masks = draw(Face((100, 100, 200, 200)), Crop(120, 120, 64, 64, 64, 64), MaskEdge(0, 8))
    for border in (masks.composite[0], masks.composite[-1], masks.composite[:, 0], masks.composite[:, -1]):
        assert float(border.max()) < 0.05
    assert float(masks.composite[32, 32]) == 1


def test_a_face_cut_by_the_edge_of_the_picture_is_whole_there() -> None:
    _, masks = masks_of(Face((0, 200, 60, 300)), MaskEdge(4, 12))
    assert float(masks.composite[:, 0].max()) == 1


def test_an_oval_leaves_the_corners_of_its_box() -> None:
    crop, masks = masks_of(Face((200, 200, 300, 300)), MaskEdge(0, 0))
    assert float(masks.composite[200 - crop.top, 200 - crop.left]) == 0
    assert float(masks.composite[250 - crop.top, 200 - crop.left]) == 1
    assert abs(float(masks.composite.sum()) / (3.14159 * 2500) - 1) < 0.01


def test_an_outline_counts_instead_of_the_oval() -> None:
    outline = torch.zeros(320, 400)
    outline[210:290, 230:240] = 1
    crop, masks = masks_of(Face((200, 200, 300, 300), mask=outline), MaskEdge(0, 0))
    assert torch.equal(masks.composite, outline[crop.region])


def test_blur_fades_inwards_over_its_width() -> None:
    crop, masks = masks_of(Face((200, 200, 300, 300)), MaskEdge(10, 20))
    row = masks.composite[250 - crop.top, : 250 - crop.left]
    inside = torch.nonzero(row)[0].item() + crop.left
    full = torch.nonzero(row == 1)[0].item() + crop.left
    assert inside in (190, 191) and abs(full - inside - 20) <= 2
    assert bool((row.diff() >= 0).all())


def test_percent_grows_with_the_face_and_pixels_do_not() -> None:
    percent = FaceRefinement(mask_padding=10, mask_blur=20, mask_unit=MASK_PERCENT)
    assert edge_of(percent, (0, 0, 200, 100)) == MaskEdge(20, 40)
    assert edge_of(FaceRefinement(), (0, 0, 200, 100)) == MaskEdge(5, 5)


def textured(generator: torch.Generator) -> torch.Tensor:
    return 0.25 + 0.5 * torch.rand(40, 40, 3, generator=generator)


RING = torch.ones(40, 40, dtype=torch.bool)
RING[8:-8, 8:-8] = False


def test_a_tint_is_taken_back_inside_the_ring_too() -> None:
    original = textured(torch.Generator().manual_seed(1))
    tinted = original + torch.tensor([0.06, 0.02, -0.05])
    assert (match_colours(tinted, original, RING) - original).abs().max() < 1e-5


def test_lost_contrast_comes_back() -> None:
    original = textured(torch.Generator().manual_seed(2))
    dull = 0.5 + 0.9 * (original - 0.5)
    assert (match_colours(dull, original, RING) - original).abs().max() < 0.01


def test_a_new_face_does_not_move_the_colours() -> None:
    """Only the ring is measured, and by its median: what differs in a part of it does not count."""
    original = textured(torch.Generator().manual_seed(3))
    painted = original.clone()
    painted[8:-8, 8:-8] = 0
    painted[:8, :15] = 1
    matched = match_colours(painted, original, RING)
    assert (matched - painted)[20, 20].abs().max() < 0.01


@pytest.mark.parametrize("amount", [0.0, 0.5])
def test_the_amount_scales_the_correction(amount: float) -> None:
    original = torch.full((40, 40, 3), 0.5)
    tinted = original + 0.04
    matched = match_colours(tinted, original, RING, amount)
    assert torch.allclose(matched, original + 0.04 * (1 - amount), atol=1e-6)
    assert amount or matched is tinted


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_a_wild_ring_cannot_spoil_the_face(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    original, painted = torch.rand(40, 40, 3, generator=generator), torch.rand(40, 40, 3, generator=generator)
    moved = match_colours(painted, original.pow(3), RING) - painted
    assert moved.abs().max() <= 0.1 + 0.15 + 1e-6
