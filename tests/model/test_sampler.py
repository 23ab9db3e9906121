"""What Klein Sampler does with its inputs: starts, strengths, progress, interrupts, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.latent_formats
import comfy.model_management
import comfy.utils
import numpy as np
import pytest
import torch
from kleinod.nodes.sampling.engine import Pictures, sample_pictures
from kleinod.nodes.sampling.nodes import KleinodSampler
from kleinod.nodes.sampling.request import SamplingRequest
from PIL import Image

from tests.model.tiny_klein import load_tiny_model, random_conditioning, tiny_vae


def make(parts: dict[str, Any], /, **settings: Any) -> Pictures:
    names = ("latent", "image", "sampler", "sigmas", "keep")
    extras = {key: settings.pop(key) for key in names if key in settings}
    asked = SamplingRequest(**{"width": 128, "height": 128, "steps": 2, "seed": 7, **settings})
    return sample_pictures(request=asked, **parts, **extras)


def picture(height: int, width: int, batch: int = 1, channels: int = 3) -> torch.Tensor:
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(3))


class Watched:
    """A clone of a model that records the batch of every call of the network and may act in it."""

    def __init__(self, model: Any, act: Any = None) -> None:
        self.model = model.clone()
        self.batches: list[int] = []
        self.act = act
        self.model.set_model_unet_function_wrapper(self._call)

    def _call(self, apply: Any, args: dict[str, Any]) -> torch.Tensor:
        self.batches.append(len(args["cond_or_uncond"]))
        if self.act is not None:
            self.act(len(self.batches))
        return apply(args["input"], args["timestep"], **args["c"])


def stop_at(call: int) -> Any:
    def press_stop(current: int) -> None:
        if current == call:
            comfy.model_management.interrupt_current_processing(True)

    return press_stop


# --- passes and guidance


def test_guidance_1_runs_no_negative_pass(parts: dict[str, Any]) -> None:
    watched = Watched(parts["model"])
    one = make({**parts, "model": watched.model}, guidance=1.0, steps=3)
    assert sum(watched.batches) == 3
    other = make({**parts, "model": watched.model, "negative": random_conditioning(9)}, guidance=1.0, steps=3)
    assert torch.equal(one.image, other.image)


def test_guidance_above_1_runs_both(parts: dict[str, Any]) -> None:
    watched = Watched(parts["model"])
    make({**parts, "model": watched.model}, guidance=4.0, steps=3)
    assert sum(watched.batches) == 6


def test_the_given_model_is_left_as_it_was(parts: dict[str, Any]) -> None:
    model = parts["model"]
    before = model.model_options["transformer_options"].copy(), model.patches_uuid
    make(parts)
    assert (model.model_options["transformer_options"], model.patches_uuid) == before


# --- starting from something


def test_sizes_come_from_the_image(parts: dict[str, Any]) -> None:
    made = make(parts, image=picture(150, 170), width=512, height=512)
    assert made.image.shape == (1, 144, 160, 3)
    assert made.latent["samples"].shape == (1, 128, 9, 10)
    text = made.report.text()
    assert "Size 160x144 is the image's; width and height are not used." in text
    assert "The image of 170x150 was cut at its edges to 160x144" in text


def test_the_middle_of_the_image_is_kept(parts: dict[str, Any]) -> None:
    image = picture(130, 143)
    made = make(parts, image=image, strength=0.0)
    assert torch.equal(made.image, image[:, 1:129, 7:135])


def test_transparency_is_laid_on_white(parts: dict[str, Any]) -> None:
    """Red that cannot be seen does not paint red; an opaque picture stays bit for bit what it is."""
    image = picture(128, 128, channels=4)
    seen = torch.lerp(torch.ones_like(image[..., :3]), image[..., :3], image[..., 3:])
    for strength in (0.0, 0.4):
        made = make(parts, image=image, strength=strength)
        assert torch.equal(made.image, make(parts, image=seen, strength=strength).image)
    assert "transparency laid on white" in made.report.text()
    image[..., 3] = 1
    assert torch.equal(make(parts, image=image, strength=0.0).image, image[..., :3])


def test_pictures_of_whole_numbers_and_of_one_channel(parts: dict[str, Any]) -> None:
    image = (picture(128, 128) * 255).round()
    as_float = make(parts, image=image / 255, strength=0.0)
    assert torch.equal(make(parts, image=image.to(torch.uint8), strength=0.0).image, as_float.image)
    grey = make(parts, image=image[..., :1] / 255, strength=0.0).image
    assert torch.equal(grey, (image[..., :1] / 255).expand(-1, -1, -1, 3))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda image: image.fill_(float("nan")), "image holds values that are not numbers"),
        (lambda image: image * 255, "image holds values up to .*divide by 255"),
        (lambda image: image[0], "image has the shape"),
        (lambda image: image[:0], "image is empty"),
        (lambda image: image.repeat(1, 1, 1, 2), "image has the shape"),
    ],
)
def test_what_is_no_picture_is_named_before_any_step(spoil: Any, words: str, parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=words):
        make(parts, image=spoil(picture(128, 128)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"noise_mask": torch.ones(8)}, "The mask of latent has the shape"),
        ({"noise_mask": torch.full((1, 8, 8), float("nan"))}, "The mask of latent holds values"),
        ({"samples": torch.full((1, 128, 8, 8), float("inf"))}, "latent holds values that are not numbers"),
    ],
)
def test_a_spoilt_latent_is_named_before_any_step(change: dict, words: str, parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=words):
        make(parts, latent={"samples": torch.ones(1, 128, 8, 8), **change})


@pytest.mark.parametrize("shape", [(1, 16, 8, 8), (1, 128, 1, 8, 8), (128, 8, 8), (1, 128, 0, 8)])
def test_references_of_another_vae_are_named_before_any_step(shape: tuple, parts: dict[str, Any]) -> None:
    watched = Watched(parts["model"])
    for name in ("positive", "negative"):
        spoilt = [[tensor, {**options, "reference_latents": [torch.zeros(1, 128, 8, 8), torch.zeros(shape)]}]
                  for tensor, options in parts[name]]  # fmt: skip
        with pytest.raises(ValueError, match=f"Reference latent 2 in {name} .*vae of Klein Loader"):
            make({**parts, "model": watched.model, name: spoilt})
    assert watched.batches == []


def test_every_entry_of_a_conditioning_is_checked(parts: dict[str, Any]) -> None:
    foreign = [*parts["positive"], [torch.zeros(1, 77, 768), {}]]
    with pytest.raises(ValueError, match="positive comes from the wrong text encoder .*CLIP-L"):
        make({**parts, "positive": foreign})
    with pytest.raises(ValueError, match="positive holds values that are not numbers"):
        make({**parts, "positive": [[torch.full_like(parts["positive"][0][0], float("nan")), {}]]})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"guidance": 3.5}, "does not read the guidance in positive (of FluxGuidance)"),
        ({"concat_latent_image": torch.zeros(1, 128, 4, 4)}, "use Klein Inpaint"),
        ({"unclip_conditioning": [{}]}, "connect pictures to Klein References"),
    ],
)
def test_what_klein_does_not_read_in_a_conditioning_is_said(
    values: dict, words: str, parts: dict[str, Any]
) -> None:
    """Nodes for FLUX.1 in front of Klein Sampler: no error, and no effect."""
    plain = make(parts)
    positive = [[tensor, {**options, **values}] for tensor, options in parts["positive"]]
    told = make({**parts, "positive": positive})
    assert torch.equal(told.image, plain.image)
    assert not plain.report.warnings and words in " ".join(told.report.warnings)
    assert words in told.report.headline


def test_a_noise_mask_is_all_that_inpaint_model_conditioning_needs(parts: dict[str, Any]) -> None:
    positive = [
        [tensor, {**o, "concat_latent_image": torch.zeros(1, 128, 4, 4)}] for tensor, o in parts["positive"]
    ]
    latent = {"samples": torch.ones(1, 128, 4, 4), "noise_mask": torch.ones(1, 64, 64)}
    assert not make({**parts, "positive": positive}, latent=latent).report.warnings


def test_small_and_large_images_are_brought_into_range(parts: dict[str, Any]) -> None:
    assert make(parts, image=picture(64, 96), strength=0.0).image.shape == (1, 128, 192, 3)
    large = make(parts, image=picture(130, 2080), strength=0.0)
    assert large.image.shape == (1, 128, 2048, 3)
    assert "was scaled to 2048x128." in large.report.text()


@pytest.mark.parametrize("mode", ["noise-level", "schedule"])
def test_more_strength_moves_further_from_the_picture(parts: dict[str, Any], mode: str) -> None:
    start = make(parts).latent["samples"]
    settings = {"strength_mode": mode, "steps": 5, "seed": 1, "guidance": 1.0}
    moved = [
        make(parts, latent={"samples": start}, strength=strength, **settings).latent["samples"]
        for strength in (0.2, 0.6, 1.0)
    ]
    far = [float((samples - start).abs().mean()) for samples in moved]
    assert far == sorted(set(far))


def test_full_strength_forgets_the_picture(parts: dict[str, Any]) -> None:
    """At sigma 1 nothing of the start is left in the mixture, but for core's last bit of sigma."""
    from_picture = make(parts, image=picture(128, 128), strength=1.0).latent["samples"]
    assert (from_picture - make(parts).latent["samples"]).abs().max() < 1e-4


def test_strength_0_calls_nothing_and_returns_the_picture(parts: dict[str, Any]) -> None:
    watched = Watched(parts["model"])
    image = picture(128, 128)
    made = make({**parts, "model": watched.model}, image=image, strength=0.0, results=2)
    assert watched.batches == []
    assert torch.equal(made.image, image.repeat(2, 1, 1, 1))
    assert torch.equal(made.latent["samples"], parts["vae"].encode(image).repeat(2, 1, 1, 1))
    assert "Strength 0: nothing was sampled" in made.report.text()


def test_less_than_half_a_step_runs_none_as_in_core(parts: dict[str, Any]) -> None:
    from comfy_extras.nodes_custom_sampler import SplitSigmasDenoise

    image, watched = picture(128, 128), Watched(parts["model"])
    settings = {"strength": 0.01, "strength_mode": "schedule", "steps": 20}
    made = make({**parts, "model": watched.model}, image=image, **settings)
    assert len(SplitSigmasDenoise.execute(torch.linspace(1, 0, 21), 0.01).args[1]) == 1
    assert watched.batches == [] and torch.equal(made.image, image)
    assert "0.01 of 20 steps is less than half a step: nothing was sampled" in made.report.text()


def test_strength_0_of_a_latent_decodes_it(parts: dict[str, Any]) -> None:
    start = make(parts)
    made = make(parts, latent=start.latent, strength=0.0)
    assert torch.equal(made.latent["samples"], start.latent["samples"])
    assert torch.equal(made.image, start.image)


def test_an_empty_latent_only_sets_the_size(parts: dict[str, Any]) -> None:
    made = make(parts, latent={"samples": torch.zeros(1, 128, 9, 8)}, strength=0.2)
    assert torch.equal(made.image, make(parts, height=144).image)
    assert "strength is not used" in made.report.text()


def test_an_empty_latent_of_another_model_is_converted(parts: dict[str, Any]) -> None:
    """What ComfyUI's own Empty Latent Image gives, as core samplers take it."""
    empty = {"samples": torch.zeros(1, 4, 18, 16), "downscale_ratio_spacial": 8}
    made = make(parts, latent=empty)
    assert torch.equal(made.image, make(parts, height=144).image)
    assert "downscale_ratio_spacial" not in made.latent
    assert empty["samples"].shape[1] == 4 and "downscale_ratio_spacial" in empty, "the wire's value stays"


def test_the_latent_comes_back_with_its_mask(parts: dict[str, Any]) -> None:
    mask = torch.ones(1, 128, 128)
    given = {"samples": torch.ones(1, 128, 8, 8), "noise_mask": mask, "batch_index": [1]}
    once = make(parts, latent=given)
    assert once.latent["noise_mask"] is mask and once.latent["batch_index"] == [1]
    assert "mask is kept" in once.report.text()
    twice = make(parts, latent=given, results=2)
    assert twice.latent["noise_mask"] is mask and "batch_index" not in twice.latent


# --- other samplers and sigmas


def test_given_sampler_and_sigmas_replace_the_request_s(parts: dict[str, Any]) -> None:
    import comfy.samplers

    sigmas = torch.tensor([1.0, 0.8, 0.4, 0.0])
    heun = comfy.samplers.sampler_object("heun")
    watched = Watched(parts["model"])
    made = make({**parts, "model": watched.model}, sampler=heun, sigmas=sigmas, guidance=1.0)
    assert len(watched.batches) == 5
    assert "the given sampler, the given sigmas" in made.report.text()
    native = make(parts, sigmas=SamplingRequest(steps=2).schedule(64, False).sigmas)
    assert torch.equal(native.image, make(parts).image)


# --- progress and interrupts


def test_one_bar_runs_over_all_results(parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    previews = []

    def hook(value: int, total: int, preview: Any, node_id: Any = None) -> None:
        seen.append((value, total))
        previews.append(preview)

    from comfy.cli_args import LatentPreviewMethod, args

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Latent2RGB)
    make(parts, steps=3)
    assert seen == [(step, 3) for step in range(1, 4)]
    assert all(preview[1].size == (8 * 2, 8 * 2) for preview in previews), "one preview pixel per 8 x 8"
    seen.clear()
    previews.clear()
    made = make(parts, steps=3, results=2)
    assert seen == [(step, 6) for step in (1, 2, 3, 3, 4, 5, 6, 6)], "each picture is shown when it is done"
    sheets = [np.asarray(preview[1]) for preview in previews]
    assert len({sheet.shape for sheet in sheets}) == 1, "the sheet has its size from the beginning"
    half = sheets[0].shape[1] // 2
    assert sheets[0][:, half + 4 :].std() == 0, "the second picture's place is empty"
    first = Image.fromarray((made.image[0].clamp(0, 1) * 255).byte().numpy()).resize((half - 2,) * 2, 2)
    assert np.array_equal(sheets[5][:, : half - 2], np.asarray(first)), "the first stays"


@pytest.mark.parametrize("scheduler", ["Heun", "UniPC", "LMS", "KDPM2AncestralDiscreteScheduler"])
def test_the_bar_never_runs_back(
    parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, node_id=None: seen.append(value)
    )
    make(parts, steps=4, results=2, scheduler=scheduler, guidance=1.0)
    assert seen == sorted(seen) and seen[-1] == 8


def test_an_interrupt_stops_within_one_model_call(parts: dict[str, Any]) -> None:
    watched = Watched(parts["model"], stop_at(2))
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        make({**parts, "model": watched.model}, steps=6, results=2, guidance=1.0)
    assert len(watched.batches) == 2
    comfy.model_management.interrupt_current_processing(False)
    clean = make(parts, steps=6)
    assert torch.equal(clean.image, make({**parts, "model": load_tiny_model()}, steps=6).image)


def test_an_interrupt_stops_between_decodes(parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    decode = parts["vae"].decode

    def press_stop(samples: torch.Tensor) -> torch.Tensor:
        decoded.append(len(samples))
        pixels = decode(samples)
        comfy.model_management.interrupt_current_processing(True)
        return pixels

    monkeypatch.setattr(parts["vae"], "decode", press_stop)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        make(parts, results=3)
    comfy.model_management.interrupt_current_processing(False)
    assert decoded == [1]


@pytest.mark.parametrize(("call", "done"), [(1, 0), (2, 0), (3, 1), (5, 2)])
def test_stop_hands_on_what_is_finished(call: int, done: int, parts: dict[str, Any]) -> None:
    """Two calls a result, in each of which Stop may be pressed; with none finished it stays an interrupt."""
    whole = make(parts, results=3, guidance=1.0)
    watched = Watched(parts["model"], stop_at(call))
    kept: list[tuple[int, torch.Tensor]] = []
    asked = {
        "results": 3, "guidance": 1.0, "keep": lambda pictures, seed: kept.append((seed, pictures)),
    }  # fmt: skip
    if not done:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            make({**parts, "model": watched.model}, **asked)
        assert kept == []
        return
    made = make({**parts, "model": watched.model}, **asked)
    assert not comfy.model_management.processing_interrupted(), "the rest of the graph runs"
    assert torch.equal(made.image, whole.image[:done])
    assert torch.equal(made.latent["samples"], whole.latent["samples"][:done])
    assert [seed for seed, _ in kept] == [7, 8][:done]
    assert all(torch.equal(pictures, made.image[i : i + 1]) for i, (_, pictures) in enumerate(kept))
    assert made.report.headline.startswith(f"{done} of 3: stopped")
    assert len(json.loads(made.data())["runs"]) == done


def test_stop_during_the_last_decoding_loses_nothing(
    parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = parts["vae"].decode

    def press_stop(samples: torch.Tensor) -> torch.Tensor:
        pixels = decode(samples)
        decoded.append(1)
        if len(decoded) == 2:
            comfy.model_management.interrupt_current_processing(True)
        return pixels

    decoded: list[int] = []
    monkeypatch.setattr(parts["vae"], "decode", press_stop)
    made = make(parts, results=2, keep=lambda pictures, seed: None)
    assert len(made.image) == 2 and not comfy.model_management.processing_interrupted()


def test_a_stopped_run_is_not_taken_for_the_whole_one(parts: dict[str, Any]) -> None:
    """ComfyUI keeps results by what a node was given: the fingerprint has to be another one afterwards."""
    hidden = SimpleNamespace(unique_id="31", prompt={}, extra_pnginfo=None)
    node = type("Queued", (KleinodSampler,), {"hidden": hidden})
    asked = dict(width=128, height=128, steps=2, guidance=1.0, seed=7, scheduler="Default", results=3)
    before = node.fingerprint_inputs(**asked)
    node.execute(**parts, **asked)
    assert node.fingerprint_inputs(**asked) == before
    watched = Watched(parts["model"], stop_at(3))
    node.execute(**{**parts, "model": watched.model}, **asked)
    assert node.fingerprint_inputs(**asked) != before


def test_each_picture_s_file_makes_that_picture_alone(parts: dict[str, Any], tmp_path: Path) -> None:
    import folder_paths

    asked = dict(width=128, height=128, steps=2, guidance=1.0, seed=7, scheduler="Default", results=3)
    prompt = {"31": {"class_type": "KleinodSampler", "inputs": dict(asked)}}
    hidden = SimpleNamespace(unique_id="31", prompt=prompt, extra_pnginfo={"workflow": {"nodes": []}})
    node = type("Queued", (KleinodSampler,), {"hidden": hidden})
    before = folder_paths.get_temp_directory()
    folder_paths.set_temp_directory(str(tmp_path))
    try:
        watched = Watched(parts["model"], stop_at(5))
        shown = node.execute(**{**parts, "model": watched.model}, **asked).ui["images"]
    finally:
        folder_paths.set_temp_directory(before)
    assert prompt["31"]["inputs"] == asked, "the graph that runs is not touched"
    assert [image["type"] for image in shown] == ["temp", "temp"]
    for image, seed in zip(shown, (7, 8), strict=True):
        assert f"seed {seed}" in image["filename"]
        with Image.open(tmp_path / image["filename"]) as file:
            graph = json.loads(file.text["prompt"])["31"]["inputs"]
            pixels = np.asarray(file)
            assert json.loads(file.text["seed"]) == seed
        assert (graph["seed"], graph["results"]) == (seed, 1)
        alone = node.execute(**parts, **graph)
        assert "images" not in alone.ui, "where nothing was stopped, what saves the pictures shows them"
        assert np.array_equal(pixels, (alone.args[0][0].clamp(0, 1) * 255).byte().numpy())


def test_out_of_memory_while_decoding_falls_back_to_tiles(
    parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """VAE.decode's own way out; nothing around it may catch the error first."""
    net = parts["vae"].first_stage_model
    decode, shapes = net.decode, []

    def run_out_once(samples: torch.Tensor, **options: Any) -> torch.Tensor:
        shapes.append(tuple(samples.shape))
        if len(shapes) == 1:
            raise comfy.model_management.OOM_EXCEPTION("full")
        return decode(samples, **options)

    monkeypatch.setattr(net, "decode", run_out_once)
    made = make(parts, results=1)
    assert len(shapes) > 1
    monkeypatch.undo()
    assert torch.allclose(made.image, make(parts).image, atol=1e-4), "one tile holds the whole picture"


# --- refusals


def test_latent_and_image_together_are_refused(parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="latent and image are both connected"):
        make(parts, latent={"samples": torch.ones(1, 128, 8, 8)}, image=picture(128, 128))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 16, 16, 16), "latent has 16 channels, but FLUX.2"),
        ((1, 128, 1, 8, 8), "latent holds video"),
    ],
)
def test_foreign_latents_are_refused(parts: dict[str, Any], shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(parts, latent={"samples": torch.ones(shape)})


def test_a_foreign_vae_is_refused_before_sampling(parts: dict[str, Any]) -> None:
    watched = Watched(parts["model"])
    vae = tiny_vae()
    vae.latent_channels = 16
    with pytest.raises(ValueError, match="vae works with 16 latent channels"):
        make({**parts, "model": watched.model, "vae": vae})
    vae.latent_channels, vae.latent_dim = 128, 3  # LTX video
    with pytest.raises(ValueError, match="vae works with video latents"):
        make({**parts, "model": watched.model, "vae": vae})
    assert watched.batches == []


def test_a_foreign_model_is_refused(parts: dict[str, Any]) -> None:
    model = parts["model"].clone()
    model.add_object_patch("latent_format", comfy.latent_formats.Flux())
    with pytest.raises(ValueError, match="model is Flux2 with 16 latent channels"):
        make({**parts, "model": model})


def test_conditioning_of_another_width_is_refused(parts: dict[str, Any]) -> None:
    wide = random_conditioning(1, width=320)
    sentence = "positive comes from the wrong text encoder .* reads klein-nano's encoder"
    with pytest.raises(ValueError, match=sentence):
        make({**parts, "positive": wide})
    with pytest.raises(ValueError, match="negative comes from the wrong text encoder"):
        make({**parts, "negative": wide})
    make({**parts, "negative": wide}, guidance=1.0)


def test_not_a_number_stops_at_the_first_result(parts: dict[str, Any]) -> None:
    class Spoiling(Watched):
        def _call(self, apply: Any, args: dict[str, Any]) -> torch.Tensor:
            return super()._call(apply, args) * float("nan")

    watched = Spoiling(parts["model"])
    with pytest.raises(ValueError, match="picture of seed 7 came out as not-a-number"):
        make({**parts, "model": watched.model}, results=3, steps=2)
    assert sum(watched.batches) == 4


def test_not_a_number_later_on_is_warned_of(parts: dict[str, Any]) -> None:
    class Spoiling(Watched):
        def _call(self, apply: Any, args: dict[str, Any]) -> torch.Tensor:
            out = super()._call(apply, args)
            return out * float("nan") if len(self.batches) == 3 else out

    spoiling = Spoiling(parts["model"])
    made = make({**parts, "model": spoiling.model}, results=3, steps=2, guidance=1.0)
    assert made.report.warnings == ("The result of seed 8 came out as not-a-number; its picture is black.",)
    assert torch.isfinite(made.latent["samples"][0]).all() and torch.isfinite(made.latent["samples"][2]).all()


# --- the node


def test_the_node_gives_picture_latent_and_report(parts: dict[str, Any]) -> None:
    out = KleinodSampler.execute(
        **parts, width=128, height=128, steps=2, guidance=4.0, seed=7, scheduler="Heun", results=2
    )
    image, latent, report = out.args[:3]
    assert image.shape == (2, 128, 128, 3) and image.dtype == torch.float32
    assert 0 <= image.min() and image.max() <= 1
    assert latent["samples"].shape == (2, 128, 8, 8)
    assert "Heun -> heun, native sigmas (closest)" in report and "1: 7, 2: 8" in report


def test_a_distilled_model_from_core_s_loader_is_recognised_by_its_file(parts: dict[str, Any]) -> None:
    model = parts["model"].clone()
    model.cached_patcher_init = (None, ("models/flux-2-klein-4b.safetensors", {}))
    assert "distilled to work without guidance" in make({**parts, "model": model}).report.warnings[0]
