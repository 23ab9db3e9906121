"""Klein Face Refiner on klein-nano: what is painted, with what, how often, what never, and its failures."""

from __future__ import annotations

from dataclasses import replace

import comfy.model_management
import comfy.utils
import node_helpers
import numpy as np
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_execution.graph_utils import ExecutionBlocker
from kleinod.nodes.base.values import MASK_PERCENT, Acceleration, FaceRefinement
from kleinod.nodes.faces.choice import LEFT_TO_RIGHT, FaceFilter
from kleinod.nodes.faces.engine import Source, refine_faces
from kleinod.nodes.faces.nodes import KleinodFaceRefiner, KleinodFaceSettings
from kleinod.nodes.faces.plan import RefineRequest
from kleinod.nodes.faces.prompts import DEFAULT_POSITIVE
from kleinod.nodes.model.choices import AUTOMATIC, NANO
from kleinod.nodes.model.nodes import KleinodLoader, KleinodPrompt
from kleinod.nodes.references.nodes import KleinodReferences
from kleinod.nodes.regions.blend import cut_out
from kleinod.nodes.regions.painter import PaintInputs
from kleinod.nodes.regions.prompt_lines import PromptLines
from kleinod.nodes.sampling.nodes import KleinodSampler

SETTINGS = FaceRefinement(
    mask_padding=10,
    mask_blur=10,
    mask_unit=MASK_PERCENT,
    strength=0.7,
    steps=2,
    guidance=3.0,
    positive_prompt="a fox on a blue background",
    inpaint_size=128,
    context=1.5,
)
LEFT = {"x": 10, "y": 20, "width": 50, "height": 50}
RIGHT = {"x": 160, "y": 60, "width": 44, "height": 44}
TOUCHING = {"x": 55, "y": 30, "width": 50, "height": 50}


@pytest.fixture(scope="module")
def nano():
    return KleinodLoader.execute(NANO, "default", AUTOMATIC, "default", AUTOMATIC, "auto").args


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    """A smooth picture with something of every frequency, so that a shift of it would be seen."""
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(256.0), indexing="ij")
    waves = [0.5 + 0.3 * torch.sin(x / a) * torch.cos(y / b) for a, b in ((9, 14), (17, 11), (23, 30))]
    return torch.stack(waves, dim=-1)[None]


def note(calls: list[dict], call: dict) -> None:
    """Apart from the wrapper: one that keeps things itself gets every step, and nothing is accelerated."""
    calls.append(call)


class Watch:
    """Sees every run's batch and every call of the network; `act` may change what a call gives."""

    def __init__(self, model, act=None) -> None:
        self.batches: list[int] = []
        self.sigmas: list[list[float]] = []
        self.denoise: list[torch.Tensor] = []
        self.calls: list[dict] = []
        self.act = act
        self.model = model.clone()
        self.model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "test", self.outer)
        self.model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", self.apply)

    def outer(self, executor, noise, latent, sampler, sigmas, *rest, **options):
        self.batches.append(len(noise))
        self.sigmas.append(sigmas.tolist())
        self.denoise.append(rest[0])
        return executor(noise, latent, sampler, sigmas, *rest, **options)

    def apply(self, executor, x, t, *rest, **extra):
        note(self.calls, {"x": x, **extra})
        out = executor(x, t, *rest, **extra)
        return out if self.act is None else self.act(self, x, out)


def refine(nano, image, boxes=None, mask=None, filter=None, seed=4, prompts="", limit=4, **change):
    settings = replace(SETTINGS, **{k: change.pop(k) for k in list(change) if hasattr(SETTINGS, k)})
    mode = {"strength_mode": change.pop("strength_mode")} if "strength_mode" in change else {}
    request = RefineRequest(
        settings,
        filter or FaceFilter(LEFT_TO_RIGHT),
        PromptLines.read(prompts),
        seed,
        batch_limit=limit,
        **mode,
    )
    model, clip, vae = change.pop("model", nano[0]), nano[1], change.pop("vae", nano[2])
    with torch.inference_mode():
        return refine_faces(
            image, Source("none", boxes, mask), PaintInputs(model, clip, vae, **change), request
        )


def inside(box: dict, image: torch.Tensor) -> torch.Tensor:
    return image[:, box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]]


@pytest.mark.parametrize("channels", [3, 4])
def test_every_bit_outside_the_masks_is_the_same(nano, picture, channels: int) -> None:
    alpha = torch.rand(2, 128, 256, 1, generator=torch.Generator().manual_seed(1))
    image = torch.cat([picture.expand(2, -1, -1, -1), alpha], dim=-1)[..., :channels].contiguous()
    before = image.clone()
    made = refine(nano, image, [[LEFT, RIGHT], [RIGHT]])
    assert torch.equal(image, before), "the input was written to"
    assert made.image.shape == image.shape and made.image.dtype == image.dtype
    untouched = made.mask == 0
    assert torch.equal(made.image[untouched], image[untouched])
    assert torch.equal(made.image[..., 3:], image[..., 3:])
    for index, box in ((0, LEFT), (0, RIGHT), (1, RIGHT)):
        changed = (inside(box, made.image[index : index + 1]) - inside(box, image[index : index + 1])).abs()
        assert changed[..., :3].mean() > 0.02
    assert bool(untouched[1, :, :140].all()), "the second picture has no face on its left"


def test_what_comes_out_beside_the_picture(nano, picture) -> None:
    made = refine(nano, picture, [RIGHT, LEFT])
    assert [[(b["x"], b["y"], b["width"], b["height"]) for b in row] for row in made.boxes] == [
        [(10, 20, 50, 50), (160, 60, 44, 44)]
    ]
    assert [tuple(crop.shape) for crop in made.before] == [(1, 128, 128, 3)] * 2
    assert [tuple(crop.shape) for crop in made.after] == [(1, 128, 128, 3)] * 2
    assert made.preview.shape == picture.shape
    assert 0 < float(made.mask.mean()) < 0.3
    assert "2 found by bounding_boxes, 2 painted" in made.info
    assert "starts at sigma 0.7" in made.info and made.headline == "2 of 2 faces painted"


def test_without_a_face_the_same_picture_comes_back_and_nothing_is_loaded(nano, picture) -> None:
    comfy.model_management.unload_all_models()
    made = KleinodFaceRefiner.execute(
        picture, *nano[:3], "none", 1, "size", 0, 0, 0, mask=torch.zeros(1, 64, 64)
    ).args
    assert made[0] is picture
    assert comfy.model_management.loaded_models() == []
    assert made[1].shape == (1, 128, 256) and not made[1].any()
    assert made[2] == [[]]
    assert isinstance(made[3][0], ExecutionBlocker) and isinstance(made[4][0], ExecutionBlocker)
    assert "0 found by mask" in made[6]


def test_strength_0_only_detects(nano, picture) -> None:
    comfy.model_management.unload_all_models()
    made = refine(nano, picture, [LEFT], strength=0.0)
    assert made.image is picture and comfy.model_management.loaded_models() == []
    assert (made.preview - picture).abs().max() > 0.2
    assert "Strength 0" in made.info


def test_faces_of_equal_size_are_one_batch_and_it_changes_nothing(nano, picture) -> None:
    image = picture.expand(2, -1, -1, -1).contiguous()
    together, alone = Watch(nano[0]), Watch(nano[0])
    batched = refine(nano, image, [[LEFT, RIGHT], [LEFT, RIGHT]], model=together.model)
    single = refine(nano, image, [[LEFT, RIGHT], [LEFT, RIGHT]], model=alone.model, limit=1)
    assert together.batches == [4] and alone.batches == [1, 1, 1, 1]
    assert (batched.image - single.image).abs().max() < 2e-4
    assert (batched.image[0] - batched.image[1]).abs().max() > 0.01, "two pictures got the same noise"


def test_a_faces_result_does_not_depend_on_its_neighbours(nano, picture) -> None:
    both = refine(nano, picture, [LEFT, RIGHT])
    only = refine(nano, picture, [LEFT, RIGHT], filter=FaceFilter(LEFT_TO_RIGHT, top_k=1))
    assert (inside(LEFT, both.image) - inside(LEFT, only.image)).abs().max() < 2e-4
    assert torch.equal(inside(RIGHT, only.image), inside(RIGHT, picture))


def test_the_model_paints_the_face_and_keeps_its_surroundings(nano, picture) -> None:
    watch = Watch(nano[0])
    refine(nano, picture, [RIGHT], model=watch.model, context=3.0)
    (denoise,) = watch.denoise
    assert denoise.shape == (1, 128, 8, 8)
    assert float(denoise[0, :, 3:5, 3:5].min()) == 1, "the middle of the face is free"
    assert float(denoise[0, :, 0].max()) == float(denoise[0, :, :, 0].max()) == 0, "far from it nothing is"


def test_a_tint_of_the_painting_is_taken_back(nano, picture) -> None:
    """A model that brightens everything: matched on the ring, the face comes out less bright."""
    bright = nano[2].encode(torch.full((1, 128, 128, 3), 0.62)) - nano[2].encode(
        torch.full((1, 128, 128, 3), 0.5)
    )
    made = [
        refine(
            nano,
            picture,
            [LEFT],
            model=Watch(nano[0], lambda watch, x, out: out + bright).model,
            guidance=1.0,
            strength=0.1,
            colour_match=amount,
        )
        for amount in (0.0, 1.0)
    ]
    plain, matched = (float((inside(LEFT, m.image) - inside(LEFT, picture)).mean()) for m in made)
    assert plain > 0.02 and abs(matched) < plain / 2
    assert "colours moved by -" in made[1].info


def test_touching_faces_follow_one_another(nano, picture) -> None:
    watch = Watch(nano[0])
    refine(nano, picture, [LEFT, TOUCHING, RIGHT], model=watch.model)
    assert watch.batches == [2, 1]


def test_the_crop_is_the_first_reference_and_identity_follows(nano, picture) -> None:
    """And the references of the whole picture are gone, from both branches."""
    vae = nano[2]
    watch = Watch(nano[0])
    references = KleinodReferences.execute(
        {"image_1": [torch.rand(1, 64, 96, 3)]}, ["native"], [1.0], [1], ["white"], ["hide the rest"]
    ).args[0]
    positive, negative = KleinodPrompt.execute(nano[1], "a frog on a red background", "").args[:2]
    whole = {"reference_latents": [vae.encode(torch.rand(1, 160, 160, 3))]}
    positive = node_helpers.conditioning_set_values(positive, whole, append=True)
    made = refine(
        nano,
        picture,
        [LEFT, RIGHT],
        model=watch.model,
        positive=positive,
        negative=negative,
        positive_prompt="",
        references=references,
    )
    crops = vae.encode(torch.cat(made.before))
    for call in watch.calls:
        latents = call["ref_latents"]
        assert [tuple(latent.shape[-2:]) for latent in latents] == [(8, 8), (4, 6)]
        for row, latent in enumerate(latents[0]):
            assert torch.allclose(latent, crops[row % 2], atol=1e-4)
    assert "reference images of the whole picture are not used" in made.info


def test_a_face_prompt_counts_for_its_face_alone(nano, picture) -> None:
    plain, watch = refine(nano, picture, [LEFT, RIGHT]), Watch(nano[0])
    own = refine(nano, picture, [LEFT, RIGHT], prompts="\na frog on a red background", model=watch.model)
    assert watch.batches == [2], "faces with different prompts still share a batch"
    assert (inside(LEFT, own.image) - inside(LEFT, plain.image)).abs().max() < 2e-4
    assert (inside(RIGHT, own.image) - inside(RIGHT, plain.image)).abs().mean() > 0.005


def test_without_any_prompt_the_model_is_asked_to_keep_the_face(nano, picture) -> None:
    made = refine(nano, picture, [LEFT], positive_prompt="")
    asked = refine(nano, picture, [LEFT], positive_prompt=DEFAULT_POSITIVE)
    assert torch.equal(made.image, asked.image) and DEFAULT_POSITIVE in made.info


def test_a_mask_paints_its_region_only(nano, picture) -> None:
    mask = torch.zeros(1, 128, 256)
    mask[0, 40:100, 100:130] = 1
    made = refine(nano, picture, mask=mask, mask_padding=0)
    assert torch.equal(made.mask[0] > 0, mask[0] > 0)
    assert (made.image - picture)[0][mask[0] > 0].abs().mean() > 0.01


def test_a_painting_that_is_not_a_number_keeps_the_face(nano, picture) -> None:
    def spoil(watch: Watch, x, out):
        out = out.clone()
        out[1::2] = float("nan")  # the second face, in both branches
        return out

    made = refine(nano, picture, [LEFT, RIGHT], model=Watch(nano[0], spoil).model)
    assert torch.equal(inside(RIGHT, made.image), inside(RIGHT, picture))
    assert (inside(LEFT, made.image) - inside(LEFT, picture)).abs().mean() > 0.02
    assert "face 2: kept as it was" in made.info and "1 painted" in made.info
    assert not bool(made.mask[:, :, 150:].any())


def test_out_of_memory_falls_back_to_smaller_batches(nano, picture) -> None:
    def full(watch: Watch, x, out):
        if watch.batches[-1] > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return out

    watch = Watch(nano[0], full)
    made = refine(nano, picture, [LEFT, RIGHT], model=watch.model)
    single = refine(nano, picture, [LEFT, RIGHT], limit=1)
    assert watch.batches == [2, 1, 1]
    assert torch.equal(made.image, single.image)
    assert "2 faces at once need more memory" in made.info


def test_other_errors_are_not_swallowed(nano, picture) -> None:
    def fail(watch: Watch, x, out):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        refine(nano, picture, [LEFT, RIGHT], model=Watch(nano[0], fail).model)


def test_an_interrupt_stops_between_two_model_calls(nano, picture) -> None:
    def stop(watch: Watch, x, out):
        if len(watch.calls) == 2:
            comfy.model_management.interrupt_current_processing()
        return out

    watch = Watch(nano[0], stop)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        refine(nano, picture, [LEFT, RIGHT], model=watch.model, steps=8, limit=1, guidance=1.0)
    assert len(watch.calls) == 2


def test_progress_counts_faces_times_steps(nano, picture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0.0)  # or fast steps are not all told
    seen: list[tuple[int, int]] = []
    comfy.utils.set_progress_bar_global_hook(
        lambda value, total, preview, node_id=None: seen.append((value, total))
    )
    try:
        refine(nano, picture, [LEFT, TOUCHING, RIGHT], steps=3)
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    assert [pair for pair in seen if pair[1] == 9] == [(2, 9), (4, 9), (6, 9), (7, 9), (8, 9), (9, 9)]


@pytest.mark.parametrize(("mode", "start", "steps"), [("noise-level", 0.5, 8), ("schedule", None, 4)])
def test_strength_modes(nano, picture, mode: str, start: float | None, steps: int) -> None:
    watch = Watch(nano[0])
    refine(nano, picture, [LEFT], model=watch.model, strength=0.5, steps=8, strength_mode=mode)
    (sigmas,) = watch.sigmas
    assert len(sigmas) == steps + 1
    assert sigmas[0] == pytest.approx(start) if start else sigmas[0] > 0.8


def test_acceleration_skips_model_calls(nano, picture) -> None:
    plain, fast = Watch(nano[0]), Watch(nano[0])
    refine(nano, picture, [LEFT], model=plain.model, steps=16, guidance=1.0)
    refine(nano, picture, [LEFT], model=fast.model, steps=16, guidance=1.0, acceleration=Acceleration("high"))
    assert len(plain.calls) == 16 and len(fast.calls) < 12


def test_the_face_stays_where_it_is(nano, picture) -> None:
    """Hardly any noise: what comes back is the autoencoder's picture of the face, in its place. The face is
    one that it knows: of others it makes something else."""
    positive, negative, *_ = KleinodPrompt.execute(nano[1], "a panda on a blue background", "").args
    face = KleinodSampler.execute(
        nano[0], positive, negative, nano[2], 128, 128, 8, 4.0, 5, "Default", 1
    ).args[0]
    picture, crop = picture.clone(), crop_of(RIGHT)
    small = comfy.utils.common_upscale(face.movedim(-1, 1), crop.width, crop.height, "area", "disabled")
    rows, columns = slice(crop.top, crop.top + crop.height), slice(crop.left, crop.left + crop.width)
    picture[:, rows, columns] = small.movedim(1, -1)
    made = refine(nano, picture, [RIGHT], strength=0.02, guidance=1.0, mask_blur=0, mask_padding=5)
    old, new = (cut_out(image[0], crop).numpy().mean(-1) for image in (picture, made.image))
    errors = {
        (dy, dx): float(
            np.square(new[16:-16, 16:-16] - np.roll(old, (dy, dx), (0, 1))[16:-16, 16:-16]).mean()
        )
        for dy in (-2, -1, 0, 1, 2)
        for dx in (-2, -1, 0, 1, 2)
    }
    assert min(errors, key=errors.get) == (0, 0), "moved by a fraction of a pixel of the enlarged crop"


def crop_of(box: dict):
    from kleinod.nodes.regions.geometry import Crop

    return Crop(box["x"] - 10, box["y"] - 2, 64, 64, 256, 256)


def test_settings_travel_from_node_to_node(nano, picture) -> None:
    custom = KleinodFaceSettings.execute(
        "custom", confidence=0.5, mask_padding=3, mask_blur=4, strength=0.6, steps=1, guidance=1.0,
        positive_prompt="a fox", negative_prompt="", inpaint_size=128,
    ).args[0]  # fmt: skip
    assert custom == FaceRefinement(0.5, 3, 4, 0.6, 1, 1.0, "a fox", "", 128)
    with torch.inference_mode():
        made = KleinodFaceRefiner.execute(
            picture, *nano[:3], "none", 1, "size", 1, 0, 0, settings=custom, bounding_boxes=[LEFT, RIGHT]
        ).args
    assert "1 painted" in made[6] and "beyond top_k 1" in made[6]
    assert len(made[3]) == len(made[4]) == 1


def test_klein_nano_paints_its_own_size(nano, picture) -> None:
    made = refine(nano, picture, [LEFT], inpaint_size=1024)
    assert "inpaint_size 1024 was not used" in made.info
    assert made.before[0].shape == (1, 128, 128, 3)
