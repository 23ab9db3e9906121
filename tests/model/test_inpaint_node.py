"""Klein Inpaint and Klein Outpaint on klein-nano: what changes, what never does, with what, and failures."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.utils
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_execution.graph_utils import ExecutionBlocker
from kleinod.nodes.base.errors import ArtistError
from kleinod.nodes.edits.canvas import OutpaintRequest
from kleinod.nodes.edits.nodes import KleinodInpaint, KleinodOutpaint
from kleinod.nodes.edits.painting import Edited, inpaint, outpaint
from kleinod.nodes.edits.request import PERCENT, InpaintRequest
from kleinod.nodes.model.choices import AUTOMATIC, NANO
from kleinod.nodes.model.nodes import KleinodLoader, KleinodPrompt
from kleinod.nodes.references.nodes import KleinodReferences
from kleinod.nodes.regions.painter import PaintInputs
from kleinod.nodes.regions.prompt_lines import PromptLines

from tests.model.tiny_klein import load_tiny_model, random_conditioning, tiny_vae

HEIGHT, WIDTH = 101, 203  # no multiple of anything


@pytest.fixture(scope="module")
def nano() -> tuple[Any, ...]:
    return KleinodLoader.execute(NANO, "default", AUTOMATIC, "default", AUTOMATIC, "auto").args


def draw(count: int = 1, channels: int = 3, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A smooth picture whose values no 8 bits hold, `[count, HEIGHT, WIDTH, channels]`."""
    y, x = torch.meshgrid(torch.arange(float(HEIGHT)), torch.arange(float(WIDTH)), indexing="ij")
    waves = [
        0.5 + 0.3 * torch.sin(x / a) * torch.cos(y / b) for a, b in ((9, 14), (17, 11), (23, 30), (40, 50))
    ]
    picture = torch.stack(waves, dim=-1)[..., :channels]
    return torch.stack([picture * (1 - 0.1 * index) for index in range(count)]).to(dtype)


def mark(*boxes: tuple[int, int, int, int], value: float = 1.0) -> torch.Tensor:
    mask = torch.zeros(1, HEIGHT, WIDTH)
    for x0, y0, x1, y1 in boxes:
        mask[:, y0:y1, x0:x1] = value
    return mask


LEFT, RIGHT = (20, 30, 60, 70), (150, 40, 180, 75)


class Watch:
    """Sees every run's batch and every call of the network; `act` may change what a call gives."""

    def __init__(self, model: Any, act: Any = None) -> None:
        self.batches: list[int] = []
        self.calls: list[dict] = []
        self.act = act
        self.model = model.clone()
        self.model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "test", self.outer)
        self.model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", self.apply)

    def outer(self, executor, noise, *rest, **options):
        self.batches.append(len(noise))
        return executor(noise, *rest, **options)

    def apply(self, executor, x, t, *rest, **extra):
        self.calls.append({"x": x, **extra})
        out = executor(x, t, *rest, **extra)
        return out if self.act is None else self.act(self, x, out)


def paint(nano, image, mask, **change) -> Edited:
    names = {"model": nano[0], "clip": nano[1], "vae": nano[2]}
    given = {name: change.pop(name, value) for name, value in names.items()}
    for name in ("positive", "negative", "references", "acceleration"):
        if name in change and not isinstance(change[name], str):
            given[name] = change.pop(name)
    settings = {"prompt": "a fox on a blue background", "steps": 2, "guidance": 1.0, "seed": 3, **change}
    with torch.inference_mode():
        return inpaint(image, mask, PaintInputs(**given), InpaintRequest(**settings))


def grow(nano, image, **change) -> Edited:
    settings = {"prompt": "a fox on a blue background", "steps": 2, "guidance": 1.0, **change}
    with torch.inference_mode():
        return outpaint(image, PaintInputs(*nano[:3]), OutpaintRequest(**settings))


def assert_rest_kept(made: Edited, image: torch.Tensor) -> None:
    untouched = made.mask == 0
    assert made.image.shape == image.shape and made.image.dtype == image.dtype
    assert torch.equal(made.image[untouched], image[untouched])
    assert torch.equal(made.image[..., 3:], image[..., 3:]), "transparency"


def changed(made: Edited, image: torch.Tensor, box: tuple[int, int, int, int], index: int = 0) -> float:
    x0, y0, x1, y1 = box
    difference = made.image[index, y0:y1, x0:x1, :3].float() - image[0, y0:y1, x0:x1, :3].float()
    return float(difference.abs().mean())


# What has been seen to break exactness elsewhere, one by one: borders, sizes, softness, channels, types.
MASKS = {
    "a box": mark(LEFT),
    "two boxes": mark(LEFT, RIGHT),
    "soft": mark(LEFT, value=0.5),
    "one pixel": mark((100, 50, 101, 51)),
    "a line": mark((5, 50, 198, 51)),
    "the corner": mark((170, 80, WIDTH, HEIGHT)),
    "all but a corner": mark((0, 0, WIDTH, HEIGHT - 4)),
    "everything": mark((0, 0, WIDTH, HEIGHT)),
}


@pytest.mark.parametrize("area", ["crop", "whole picture"])
@pytest.mark.parametrize("name", MASKS)
def test_every_bit_outside_the_mask_is_the_same(nano, name: str, area: str) -> None:
    image = draw()
    before = image.clone()
    made = paint(nano, image, MASKS[name], area=area)
    assert torch.equal(image, before), "the input was written to"
    assert_rest_kept(made, image)
    assert bool((made.mask[MASKS[name] > 0] > 0).all()), "a part of the mask was left out"
    assert float((made.image - image).abs().amax(dim=-1)[MASKS[name] > 0].mean()) > 0.01
    assert len(made.before) == len(made.after) >= 1 and made.before[0].shape == made.after[0].shape


@pytest.mark.parametrize(
    ("channels", "dtype"),
    [(4, torch.float32), (3, torch.float16), (3, torch.bfloat16), (4, torch.float64)],
)
def test_alpha_and_every_type_stay(nano, channels: int, dtype: torch.dtype) -> None:
    image = draw(2, channels, dtype)
    for area in ("crop", "whole picture"):
        made = paint(nano, image, mark(LEFT), area=area)
        assert_rest_kept(made, image)
        assert changed(made, image, LEFT) > 0.01
    new = grow(nano, image, left=20, right=40, overlap=8)
    assert new.image.shape == (2, HEIGHT, WIDTH + 60, channels) and new.image.dtype == dtype
    assert torch.equal(new.image[:, :, 28:-48], image[:, :, 8:-8])


def test_a_soft_mask_blends_and_a_hard_one_is_whole(nano) -> None:
    image = draw()
    hard = paint(nano, image, mark(LEFT), grow=0, feather=0)
    soft = paint(nano, image, mark(LEFT, value=0.5), grow=0, feather=0)
    assert torch.equal(hard.mask, mark(LEFT)) and torch.equal(soft.mask, mark(LEFT, value=0.5))
    half = (hard.image + image) / 2
    assert float((soft.image - half).abs().max()) < 1e-5


@pytest.mark.parametrize("mask", [torch.zeros(1, 64, 64), mark(LEFT, value=0.005)])
def test_an_empty_mask_gives_the_very_picture_back_and_loads_nothing(nano, mask: torch.Tensor) -> None:
    comfy.model_management.unload_all_models()
    image = draw()
    made = KleinodInpaint.execute(
        image, mask, nano[0], nano[2], "a fox", "crop", 1.0, 2, 1.0, 0, 1.5, 1.0, 6, 6, PERCENT, 1.0, 1
    ).args
    assert made[0] is image and not made[1].any()
    assert isinstance(made[2][0], ExecutionBlocker) and isinstance(made[3][0], ExecutionBlocker)
    assert "mask is empty" in made[4]
    assert comfy.model_management.loaded_models() == []


def test_masks_and_pictures_go_together_as_said(nano) -> None:
    one, two = draw(), draw(2)
    each = torch.cat([mark(LEFT), mark(RIGHT)])
    made = paint(nano, two, each)
    assert not bool(made.mask[0, :, 140:].any()) and not bool(made.mask[1, :, :100].any())
    assert_rest_kept(made, two)
    assert len(paint(nano, one, each).before) == 2, "several masks with one picture are a region each"
    assert len(paint(nano, two, mark(LEFT)).before) == 2, "one mask serves both"
    small = torch.nn.functional.interpolate(mark(LEFT)[None], scale_factor=0.5)[0]
    assert_rest_kept(paint(nano, one, small[0]), one)
    assert "another shape" in paint(nano, one, torch.ones(1, 32, 32)).info
    with pytest.raises(ArtistError, match="mask holds 3 masks, but image holds 2 pictures"):
        paint(nano, two, torch.ones(3, HEIGHT, WIDTH))
    with pytest.raises(ArtistError, match="mask holds values that are not numbers"):
        paint(nano, one, mark(LEFT) * float("nan"))
    with pytest.raises(ArtistError, match="image holds values up to .* divide by 255"):
        paint(nano, one * 255, mark(LEFT))


def test_regions_are_painted_by_their_own_prompts(nano) -> None:
    image, mask = draw(), mark(LEFT, RIGHT)
    plain, watch = paint(nano, image, mask), Watch(nano[0])
    lines = PromptLines.read("\na frog on a red background")
    own = paint(nano, image, mask, prompts=lines, model=watch.model)
    assert watch.batches == [2], "regions with different prompts still share a batch"
    assert changed(own, plain.image, LEFT) < 1e-3 < 5e-3 < changed(own, plain.image, RIGHT)
    skipped = paint(nano, image, mask, prompts=PromptLines.read("[SKIP]"))
    assert changed(skipped, image, LEFT) == 0 < changed(skipped, image, RIGHT)
    nothing = paint(nano, image, mark(LEFT), prompts=PromptLines.read("[SKIP]"))
    assert nothing.image is image and "[SKIP]" in nothing.info


def test_results_are_the_single_runs_of_the_next_seeds(nano) -> None:
    image = draw(2)
    both = paint(nano, image, mark(LEFT), results=2, seed=8)
    singles = [paint(nano, image, mark(LEFT), seed=seed) for seed in (8, 9)]
    assert both.image.shape[0] == both.mask.shape[0] == 4
    assert float((both.image - torch.cat([one.image for one in singles])).abs().max()) < 2e-4
    assert float((singles[0].image - singles[1].image).abs().max()) > 0.01
    assert_rest_kept(both, image.repeat(2, 1, 1, 1))


def test_the_crop_is_the_first_reference_and_the_others_follow(nano) -> None:
    references = KleinodReferences.execute(
        {"image_1": [torch.rand(1, 64, 96, 3)]}, ["native"], [1.0], [1], ["white"], ["hide the rest"]
    ).args[0]
    image = draw()
    seen = {}
    for kind in ("crop", "crop without the masked part", "none"):
        watch = Watch(nano[0])
        made = paint(nano, image, mark(LEFT), model=watch.model, references=references, crop_reference=kind)
        seen[kind] = watch.calls[0]["ref_latents"]
    crop = nano[2].encode(made.before[0])
    assert [tuple(latent.shape[-2:]) for latent in seen["crop"]] == [tuple(crop.shape[-2:]), (4, 6)]
    assert torch.allclose(seen["crop"][0], crop, atol=1e-4)
    hidden = (seen["crop without the masked part"][0] - crop).abs().mean(dim=1)[0]
    rows, columns = hidden.shape
    assert float(hidden[rows // 2, columns // 2]) > 10 * float(hidden[0, 0]) + 0.01
    assert [tuple(latent.shape[-2:]) for latent in seen["none"]] == [(4, 6)]
    alone = Watch(nano[0])
    paint(nano, image, mark(LEFT), model=alone.model, crop_reference="none")
    assert alone.calls[0].get("ref_latents") is None


def test_references_weigh_in_a_crop_as_in_a_picture(nano) -> None:
    """Hidden: as without it. Its place covers the crop, or lies elsewhere: everywhere, or nearly nowhere."""
    image = draw()

    def painted(weights: str = "", place: torch.Tensor | None = None, shown: bool = True) -> torch.Tensor:
        references = KleinodReferences.execute(
            {"image_1": [torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(1))]},
            ["native"], [1.0], [1], ["white"], ["hide the rest"], weights=[weights],
            places=None if place is None else {"place_1": [place]},
        ).args[0]  # fmt: skip
        return paint(nano, image, mark(LEFT), references=references if shown else None).image

    full, without = painted(), painted(shown=False)
    assert float((full - without).abs().max()) > 0.01
    assert torch.allclose(painted("0"), without, atol=1e-4)
    assert torch.allclose(painted(place=torch.ones(1, 8, 8)), full, atol=1e-4)
    left, right = torch.zeros(1, *image.shape[1:3]), torch.zeros(1, *image.shape[1:3])
    middle = image.shape[2] // 2
    left[:, :, :middle] = 1
    right[:, :, middle:] = 1
    near, far = (float((painted(place=place) - full).pow(2).mean()) for place in (left, right))
    assert near < far


def test_conditionings_serve_without_a_clip(nano) -> None:
    positive, negative = KleinodPrompt.execute(nano[1], "a fox on a blue background", "").args[:2]
    image = draw()
    given = paint(nano, image, mark(LEFT), prompt="", clip=None, positive=positive, negative=negative)
    assert torch.equal(given.image, paint(nano, image, mark(LEFT)).image)
    with pytest.raises(ArtistError, match="clip is empty"):
        paint(nano, image, mark(LEFT), clip=None)


def test_strength_0_paints_nothing_and_little_strength_little(nano) -> None:
    image = draw()
    none = paint(nano, image, mark(LEFT), strength=0.0)
    assert none.image is image and "Strength 0" in none.info
    little, whole = (changed(paint(nano, image, mark(LEFT), strength=s), image, LEFT) for s in (0.3, 1.0))
    assert 0 < little < whole


def test_out_of_memory_falls_back_to_smaller_batches(nano) -> None:
    def full(watch: Watch, x, out):
        if watch.batches[-1] > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return out

    watch = Watch(nano[0], full)
    image = draw(2)
    made = paint(nano, image, mark(LEFT), model=watch.model)
    assert watch.batches == [2, 1, 1]
    assert torch.equal(made.image, paint(nano, image, mark(LEFT), batch_limit=1).image)
    assert "2 regions at once need more memory" in made.info


def test_a_painting_that_is_not_a_number_keeps_the_picture(nano) -> None:
    image = draw()
    watch = Watch(nano[0], lambda watch, x, out: out * float("nan"))
    made = paint(nano, image, mark(LEFT), model=watch.model)
    assert torch.equal(made.image, image) and not made.mask.any()
    assert "kept as it was" in made.info and "Nothing painted" in made.headline


def test_an_interrupt_stops_between_two_model_calls(nano) -> None:
    def stop(watch: Watch, x, out):
        if len(watch.calls) == 2:
            comfy.model_management.interrupt_current_processing()
        return out

    watch = Watch(nano[0], stop)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        paint(nano, draw(), mark(LEFT), model=watch.model, steps=8)
    assert len(watch.calls) == 2


def test_progress_counts_regions_times_steps(nano, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0.0)  # or fast steps are not all told
    seen: list[tuple[int, int]] = []
    comfy.utils.set_progress_bar_global_hook(
        lambda value, total, preview, node_id=None: seen.append((value, total))
    )
    try:
        paint(nano, draw(), mark(LEFT, RIGHT), steps=3, batch_limit=1)
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    assert [value for value, total in seen if total == 6] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("family", ["distilled", "base", "KV"])
def test_a_real_klein_of_every_kind_paints_exactly(family: str) -> None:
    from comfy_extras.nodes_flux import FluxKVCache

    model, vae = load_tiny_model(), tiny_vae()
    model = FluxKVCache.execute(model)[0] if family == "KV" else model
    conditioning = random_conditioning()
    image = draw(channels=4)
    with torch.inference_mode():
        made = inpaint(
            image,
            mark(LEFT, RIGHT),
            PaintInputs(model, None, vae, conditioning, conditioning),
            InpaintRequest(
                steps=2, guidance=3.0 if family == "base" else 1.0, megapixels=0.1, regions="together"
            ),
        )
    assert_rest_kept(made, image)
    assert changed(made, image, LEFT) > 0.01


# --- outpaint


@pytest.mark.parametrize("overlap", [0, 12])
@pytest.mark.parametrize("area", ["crop", "whole picture"])
@pytest.mark.parametrize("sides", [(0, 0, 37, 0), (16, 0, 0, 0), (0, 21, 0, 0), (9, 10, 11, 12)])
def test_the_old_picture_stays_but_for_the_overlap(nano, sides, area: str, overlap: int) -> None:
    image = draw()
    left, top, right, bottom = sides
    made = grow(nano, image, left=left, top=top, right=right, bottom=bottom, area=area, overlap=overlap)
    assert made.image.shape == (1, HEIGHT + top + bottom, WIDTH + left + right, 3)
    inner = [overlap if side else 0 for side in sides]
    rows = slice(top + inner[1], top + HEIGHT - inner[3])
    columns = slice(left + inner[0], left + WIDTH - inner[2])
    old = slice(inner[1], HEIGHT - inner[3]), slice(inner[0], WIDTH - inner[2])
    assert torch.equal(made.image[:, rows, columns], image[:, old[0], old[1]])
    assert not bool(made.mask[:, rows, columns].any())
    new = torch.ones(made.mask.shape, dtype=torch.bool)
    new[:, top : top + HEIGHT, left : left + WIDTH] = False
    assert bool((made.mask[new] == 1).all())


def test_nothing_to_add_gives_the_picture_back(nano) -> None:
    image = draw()
    made = KleinodOutpaint.execute(
        image, nano[0], nano[2], "", "pixels a side", 0, 0, 0, 0, "16:9", 64, 64, "centre", 16,
        "whole picture", 2, 1.0, 0, 1.0, 1.0, 1,
    ).args  # fmt: skip
    assert made[0] is image and "No pixels" in made[4]


def test_a_smaller_size_is_refused(nano) -> None:
    with pytest.raises(ArtistError, match="width and height are 128x128, but image is 203x101 already"):
        grow(nano, draw(), extend="size", width=128, height=128)


def test_the_node_says_why_nothing_was_painted(nano) -> None:
    image = draw()
    assert paint(nano, image, torch.zeros(1, 8, 8)).headline.startswith("mask is empty")
    assert paint(nano, image, mark(LEFT), strength=0.0).headline.startswith("Strength 0: ")
    assert grow(nano, image, right=0).headline.startswith("No pixels are to be added")
    assert "% of the picture kept bit for bit" in paint(nano, image, mark(LEFT)).headline
