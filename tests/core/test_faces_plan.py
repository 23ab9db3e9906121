"""The settings' value, which faces are painted in which order, their seeds and prompts, and who waits."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kleinod_pure.base.values import MASK_PIXELS, FaceRefinement
from kleinod_pure.faces.choice import ORDERS, FaceFilter, choose_faces, reading_ranks
from kleinod_pure.faces.detection import Face
from kleinod_pure.faces.given import (
    explain_boxes,
    explain_mask,
    faces_from_boxes,
    faces_from_mask,
    outline_with_mask,
)
from kleinod_pure.faces.plan import RefineRequest, plan_faces
from kleinod_pure.faces.presets import API, CUSTOM, FIELDS, KLEIN_BASE, PRESET_NAMES, choose_settings
from kleinod_pure.faces.preview import draw_preview
from kleinod_pure.regions.geometry import intersects
from kleinod_pure.regions.prompt_lines import PromptLines
from kleinod_pure.regions.seeds import seed_of_region
from kleinod_pure.regions.waves import group_by_size, order_waves
from kleinod_pure.remote.job_request import RunContext
from kleinod_pure.remote.services import find_service

from tests.emulator.runware import ULTRALYTICS

# Name in the API, field, least, most, default: the numbers of the seed document.
NUMBERS = (
    ("CFGScale", "guidance", 0, 50, 8),
    ("confidence", "confidence", 0, 1, 0.9),
    ("maskBlur", "mask_blur", 0, 100, 5),
    ("maskPadding", "mask_padding", 0, 20, 5),
    ("steps", "steps", 1, 100, 20),
    ("strength", "strength", 0, 1, 0.3),
)
SIZE = (600, 400)
TWO_APART = [Face((50, 50, 110, 110)), Face((400, 200, 460, 260))]


@pytest.mark.parametrize(("name", "field", "least", "most", "default"), NUMBERS)
def test_ranges_and_defaults_are_the_apis(name, field, least, most, default) -> None:
    assert getattr(FaceRefinement(), field) == default == FaceRefinement().to_runware()[name]
    for value in (least, most):
        assert FaceRefinement(**{field: value}).to_runware()[name] == value
    for value in (least - 1, most + 1, float("nan")):
        with pytest.raises(ValueError, match=field):
            FaceRefinement(**{field: value})


def test_runware_gets_the_eight_fields_and_nothing_else() -> None:
    full = FaceRefinement(positive_prompt="a face", negative_prompt="blur").to_runware()
    assert set(full) == set(ULTRALYTICS)
    assert (full["positivePrompt"], full["negativePrompt"]) == ("a face", "blur")
    assert "positivePrompt" not in FaceRefinement(positive_prompt="  ").to_runware()
    inputs = {"positive_prompt": "x", "face_refinement": FaceRefinement()}
    body = find_service("runware").make_request(RunContext(), inputs).body
    assert body["advancedFeatures"] == {"ultralytics": FaceRefinement().to_runware()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inpaint_size": 1000}, "inpaint_size is 1000.*992 or 1008"),
        ({"inpaint_size": 112}, "inpaint_size is 112.*128 to 2048"),
        ({"mask_unit": "metres"}, "mask_unit is 'metres'.*pixels"),
        ({"context": 1.0}, "context"),
        ({"max_upscale": 20}, "max_upscale"),
        ({"colour_match": 2}, "colour_match"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FaceRefinement(**change)


def test_a_preset_sets_its_fields_and_leaves_the_rest() -> None:
    mine = FaceRefinement(0.2, 1, 2, 0.9, 7, 3.0, "she", "he", 512, MASK_PIXELS, 3.0, 4.0, 0.5)
    assert choose_settings(CUSTOM, mine) is mine
    for name in PRESET_NAMES[:-1]:
        made = choose_settings(name, mine)
        changed = {f.name for f in fields(made) if getattr(made, f.name) != getattr(mine, f.name)}
        assert changed <= set(FIELDS) and len(changed) >= 5
    assert choose_settings(API, FaceRefinement()) == FaceRefinement()
    assert choose_settings(KLEIN_BASE, FaceRefinement()).guidance == 4
    with pytest.raises(ValueError, match="preset is 'x'"):
        choose_settings("x", mine)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**20 - 1), st.integers(0, 4095), st.data())
def test_no_two_faces_of_a_run_share_a_seed(seed: int, picture: int, face: int, data) -> None:
    other = data.draw(st.tuples(st.integers(0, 2**20 - 1), st.integers(0, 4095)))
    mine = seed_of_region(seed, picture, face)
    assert 0 <= mine < 2**32
    assert (mine == seed_of_region(seed, *other)) == (other == (picture, face))


def test_neighbouring_seeds_pictures_and_faces_all_get_their_own_noise() -> None:
    """As noise, not as numbers: the CPU generator reads only 32 bits of a seed."""
    first = {
        tuple(torch.randn(2, generator=torch.Generator().manual_seed(seed_of_region(s, p, f))).tolist())
        for s in range(8)
        for p in range(8)
        for f in range(8)
    }
    assert len(first) == 512


def test_wide_seeds_differ_too() -> None:
    assert seed_of_region(7, 0, 0) != seed_of_region(7 + 2**32, 0, 0)


boxes = st.builds(
    lambda x, y, w, h, s: Face((x, y, min(x + w, SIZE[0]), min(y + h, SIZE[1])), s),
    st.floats(0, 560),
    st.floats(0, 360),
    st.floats(10, 90),
    st.floats(10, 90),
    st.floats(0, 1),
)


@given(st.lists(boxes, max_size=8), st.sampled_from(ORDERS), st.integers(0, 9), st.integers(0, 60))
def test_every_face_is_chosen_or_left_out_with_a_reason(faces, order, top_k, least) -> None:
    choice = choose_faces(faces, SIZE, FaceFilter(order, top_k, least, 80))
    assert sorted([*choice.chosen, *choice.left_out]) == list(range(len(faces)))
    assert not top_k or len(choice.chosen) <= top_k
    for index in choice.chosen:
        assert least <= max(faces[index].width, faces[index].height) <= 80
    assert all(choice.left_out.values())


def test_a_face_of_just_the_limits_size_fits() -> None:
    faces = [Face((0, 0, side, 20)) for side in (39, 40, 60, 61)]
    assert choose_faces(faces, SIZE, FaceFilter("left to right", 0, 40, 60)).chosen == (1, 2)


def test_orders() -> None:
    faces = [
        Face((0, 0, 30, 30), 0.5),
        Face((280, 180, 300, 200), 0.9),
        Face((400, 0, 480, 80), 0.7),
    ]
    chosen = {order: choose_faces(faces, SIZE, FaceFilter(order)).chosen for order in ORDERS}
    assert chosen == {"size": (2, 0, 1), "score": (1, 2, 0), "left to right": (0, 1, 2), "centre": (1, 2, 0)}


def test_wishes_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="min_size is 50 and max_size 20"):
        FaceFilter(min_size=50, max_size=20)
    with pytest.raises(ValueError, match="top_k is -1"):
        FaceFilter(top_k=-1)
    with pytest.raises(ValueError, match="order is 'random'"):
        FaceFilter("random")


def test_a_faces_seed_does_not_depend_on_order_or_limits() -> None:
    seeds = {}
    for order in ORDERS:
        for region in plan_faces(
            [TWO_APART], SIZE, RefineRequest(FaceRefinement(), FaceFilter(order))
        ).regions:
            seeds.setdefault(region.face.box, set()).add(region.seed)
    assert [len(found) for found in seeds.values()] == [1, 1]
    assert reading_ranks(TWO_APART[::-1]) == [1, 0]


@given(st.lists(boxes, min_size=2, max_size=6))
@settings(max_examples=15, deadline=None)
def test_faces_of_one_wave_never_touch_and_later_ones_wait(faces) -> None:
    plan = plan_faces([faces], SIZE, RefineRequest(FaceRefinement(inpaint_size=128, max_upscale=16)))
    waves = order_waves(plan.regions)
    assert sorted(region.number for wave in waves for region in wave) == sorted(
        region.number for region in plan.regions
    )
    place = {region: index for index, wave in enumerate(waves) for region in wave}
    for one in plan.regions:
        for other in plan.regions:
            if one.number < other.number and intersects(one.reach, other.reach):
                assert place[one] < place[other]


def test_faces_of_different_pictures_share_a_batch() -> None:
    plan = plan_faces([TWO_APART, TWO_APART], SIZE, RefineRequest(FaceRefinement()))
    (wave,) = order_waves(plan.regions)
    (group,) = group_by_size(wave)
    assert len(group) == 4 and len({region.seed for region in group}) == 4


def test_the_same_seed_for_every_picture_where_it_is_asked_for() -> None:
    asked = RefineRequest(FaceRefinement(), same_seed=True)
    plan = plan_faces([TWO_APART, TWO_APART[::-1]], SIZE, asked)
    seeds = [{r.face.box: r.seed for r in plan.regions if r.picture == picture} for picture in (0, 1)]
    assert seeds[0] == seeds[1] and len(set(seeds[0].values())) == 2
    alone = plan_faces([TWO_APART], SIZE, RefineRequest(FaceRefinement()))
    assert {r.face.box: r.seed for r in alone.regions} == seeds[0]


def test_prompts_by_line_with_skip_and_shared_text() -> None:
    prompts = PromptLines.read("an old man\n\n[skip] \n[PROMPT], smiling [SEP] last")
    assert prompts.for_region(0, "she") == "an old man"
    assert prompts.for_region(1, "she") is None and not prompts.skips(1)
    assert prompts.skips(2)
    assert prompts.for_region(3, "she") == "she, smiling"
    assert prompts.for_region(4, "she") == "last"
    assert prompts.for_region(9, "she") is None
    assert PromptLines.read("  ") == PromptLines()


def test_a_skipped_and_a_tiny_face_are_left_out_with_a_reason() -> None:
    faces = [*TWO_APART, Face((200, 20, 203, 23))]
    request = RefineRequest(
        FaceRefinement(max_upscale=1), FaceFilter("left to right"), PromptLines.read("[SKIP]")
    )
    plan = plan_faces([faces], SIZE, request)
    assert [region.face for region in plan.regions] == [TWO_APART[1]]
    reasons = {left.face.box[0]: left.reason for left in plan.left_out}
    assert "[SKIP]" in reasons[50] and "too small" in reasons[200]


@pytest.mark.parametrize(("mode", "steps", "start"), [("noise-level", 20, 0.3), ("schedule", 6, None)])
def test_strength_as_noise_level_or_as_share_of_the_steps(mode: str, steps: int, start) -> None:
    request = RefineRequest(FaceRefinement(), strength_mode=mode)
    schedule = request.painting.schedule((1024, 1024))
    assert schedule.steps == request.painting.steps_run == steps
    assert schedule.start == pytest.approx(start) if start else 0.7 < schedule.start < 0.85


def box(x, y, width, height, **more) -> dict:
    return {"x": x, "y": y, "width": width, "height": height, **more}


def test_boxes_in_every_form_of_core() -> None:
    one = box(10, 20, 30, 40, score=0.5, label="cat")
    for form, count in ((one, 1), ([one], 1), ([[one]], 1), (one, 2), ([[one], [one]], 2)):
        found = faces_from_boxes(form, count, SIZE)
        assert [[(face.box, face.score, face.label) for face in row] for row in found] == [
            [((10, 20, 40, 60), 0.5, "cat")]
        ] * count
    assert faces_from_boxes([[], [one]], 2, SIZE)[0] == []
    assert faces_from_boxes([], 1, SIZE) == [[]]


def test_boxes_are_cut_at_the_edge_and_empty_ones_dropped() -> None:
    found = faces_from_boxes([box(-5, 390, 20, 50), box(700, 0, 5, 5), box(3, 3, 0, 4)], 1, SIZE)
    assert [face.box for face in found[0]] == [(0, 390, 15, 400)]


@pytest.mark.parametrize(
    "wrong", [[{"x": 1}], [[1, 2, 3, 4]], {"x": "left", "y": 0, "width": 1, "height": 1}]
)
def test_what_is_no_box_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match="bounding_boxes"):
        faces_from_boxes(wrong, 1, SIZE)
    with pytest.raises(ValueError, match="lists for 3 pictures.*image holds 2"):
        faces_from_boxes([[], [], []], 2, SIZE)


def test_regions_of_a_mask_are_faces_with_outlines() -> None:
    mask = torch.zeros(1, 400, 600)
    mask[0, 50:90, 60:100] = 1
    mask[0, 200:300, 300:420] = 0.8
    mask[0, 5, 5] = 1
    (row,) = faces_from_mask(mask, 1, SIZE)
    assert [face.box for face in row] == [(300, 200, 420, 300), (60, 50, 100, 90)]
    assert torch.equal(row[1].mask, (mask[0] * 0 + (mask[0] == 1)).index_fill(0, torch.tensor([5]), 0))
    assert len(faces_from_mask(mask, 3, SIZE)) == 3
    assert faces_from_mask(torch.zeros(1, 64, 64), 1, SIZE) == [[]]
    with pytest.raises(ValueError, match="mask holds 2 masks, but image holds 3"):
        faces_from_mask(torch.zeros(2, 400, 600), 3, SIZE)


def test_a_mask_outlines_boxes() -> None:
    mask = torch.zeros(1, 400, 600)
    mask[0, 60:100, 60:100] = 1
    (row,) = outline_with_mask([TWO_APART], mask, SIZE)
    assert float(row[0].mask.sum()) == 1600 and row[1].mask is None


def test_the_preview_marks_every_face_and_nothing_far_from_them() -> None:
    image = torch.full((2, 400, 600, 3), 0.5)
    request = RefineRequest(FaceRefinement(), FaceFilter(top_k=1))
    preview = draw_preview(image, plan_faces([TWO_APART, []], SIZE, request))
    assert preview.shape == (2, 400, 600, 3)
    painted, grey = preview[0, 50, 80], preview[0, 200, 430]
    assert painted.max() - painted.min() > 0.5, "the chosen face has a coloured frame"
    assert grey.max() - grey.min() < 0.01 and abs(float(grey[0]) - 0.5) > 0.05, "the other a grey one"
    assert (preview[0, 330:] - 0.5).abs().max() < 0.01
    assert (preview[1] - 0.5).abs().max() < 0.01


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.full((1, 400, 600), 0.4), "nowhere above 0.5 .*highest value is 0.40"),
        (torch.zeros(1, 64, 64), "mask is empty"),
        (torch.zeros(1, 400, 600).index_fill(2, torch.tensor([3]), 0).index_put(
            (torch.tensor([0]), torch.tensor([5]), torch.tensor([5])), torch.tensor(1.0)), "fewer than 16"),
    ],
)  # fmt: skip
def test_a_mask_that_marks_nothing_says_why(mask: torch.Tensor, words: str) -> None:
    assert faces_from_mask(mask, 1, SIZE) == [[]]
    (reason,) = explain_mask(mask)
    assert re.search(words, reason)


def test_boxes_that_are_no_faces_say_why() -> None:
    inside, outside = box(10, 20, 30, 40), box(700, 10, 20, 20)
    assert explain_boxes([inside], SIZE) == []
    (reason,) = explain_boxes([[inside], [outside]], SIZE)
    assert (
        reason.startswith("1 of 2 boxes are empty or outside the picture of 600x400") and "700, 10" in reason
    )
    assert explain_boxes(box(3, 3, 0, 4), SIZE)[0].startswith("The box is empty or outside")
    assert explain_boxes([[], []], SIZE)[0].startswith("bounding_boxes holds no box")
    white = torch.ones(1, 400, 600)
    assert explain_mask(white) == []
