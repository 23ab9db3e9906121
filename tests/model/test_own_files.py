"""The user's own files as one set: what Klein Loader's button picks, what is missing, what samplers get."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from kleinod.nodes.model.choices import NANO
from kleinod.nodes.model.own_files import facts_of_file, find_own_files
from kleinod.nodes.model.real_weights import BASE, ENCODER, SET, VAE
from kleinod.nodes.model.routes import describe_files

from tests.model.tiny_klein import make_dit_state

MODEL = "flux-2-klein-base-4b-tiny.safetensors"


def test_without_files_the_whole_set_is_named(model_folders: Path) -> None:
    found = find_own_files()
    assert not found.ready and found.missing == SET == (BASE, ENCODER, VAE)
    told = describe_files(found)
    assert told["loader"] == {} and told["sampler"] == {}
    for weights in told["missing"]:
        assert weights["url"].endswith(f"{weights['folder']}/{weights['name']}") and weights["gigabytes"] > 0


def test_a_whole_set_is_picked_with_its_settings(tiny_models: Path) -> None:
    told = describe_files(find_own_files())
    assert told["ready"] and told["missing"] == [] and told["reason"] == ""
    assert told["loader"] == {
        "diffusion_model": MODEL,
        "text_encoder": "qwen_3_4b-tiny.safetensors",
        "vae": "flux2-vae-tiny.safetensors",
        "variant": "base",
    }
    assert told["sampler"] == {"width": 1024, "height": 1024, "steps": 28, "guidance": 4.0}


def test_what_is_picked_loads(tiny_models: Path) -> None:
    from kleinod.nodes.model.nodes import KleinodLoader

    picked = describe_files(find_own_files())["loader"]
    assert KleinodLoader.execute(weight_dtype="default", text_encoder_device="default", **picked).args[0]


def test_one_file_at_a_time(model_folders: Path, tiny_root: Path) -> None:
    def put(folder: str) -> None:
        for file in (tiny_root / folder).iterdir():
            shutil.copy(file, model_folders / folder / file.name)

    put("vae")
    assert find_own_files().missing == (BASE, ENCODER)
    put("diffusion_models")
    found = find_own_files()
    # It is no 4B: the file that would fit is not one that can be offered, so a sentence says what is needed.
    assert found.missing == () and not found.ready and "no file in models/text_encoders" in found.reason
    put("text_encoders")
    assert find_own_files().ready


def test_what_is_no_klein_is_passed_over(tiny_models: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = tiny_models / "diffusion_models"
    decoys = {"a.safetensors": b"<html>", "flux-2-klein-base-4b.safetensors": b"version https://git-lfs"}
    distilled = folder / "flux-2-klein-4b-mine.safetensors"
    try:
        for name, data in decoys.items():
            (folder / name).write_bytes(data)
        save_file(make_dit_state(), distilled)
        assert find_own_files().diffusion_model == MODEL, "Base before distilled"
        kept = describe_files(find_own_files(distilled.name))
        assert kept["loader"]["diffusion_model"] == distilled.name, "what the user has picked stays"
        assert kept["sampler"]["steps"] == 4 and kept["sampler"]["guidance"] == 1
        assert describe_files(find_own_files(distilled.name, "base"))["sampler"]["steps"] == 28
    finally:
        for name in (*decoys, distilled.name):
            (folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["../../etc/passwd", "gone.safetensors", "", "x.gguf"])
def test_only_listed_files_tell_something(name: str, tiny_models: Path) -> None:
    assert facts_of_file(name) is None


def test_klein_nano_tells_its_size() -> None:
    facts = facts_of_file(NANO)
    assert facts is not None and facts.family == "nano"
    assert facts.sampler_settings() == {"width": 128, "height": 128, "steps": 28, "guidance": 4.0}


@pytest.mark.parametrize(("side", "warned"), [(272, True), (128, False)])
def test_a_size_that_klein_nano_cannot_draw_is_said_before_the_first_step(
    side: int, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kleinod.nodes.model.choices import AUTOMATIC
    from kleinod.nodes.model.nodes import KleinodLoader, KleinodPrompt
    from kleinod.nodes.sampling import engine
    from kleinod.nodes.sampling.request import SamplingRequest

    model, clip, vae, _ = KleinodLoader.execute(NANO, "default", AUTOMATIC, "default", AUTOMATIC, "auto").args
    positive, negative, _ = KleinodPrompt.execute(clip, "a fox", "").args
    told: list[str] = []
    told_before_step: list[bool] = []

    def step(apply, args):  # noqa: ANN001, ANN202 - ComfyUI's own shape of a wrapper
        told_before_step.append(bool(told))
        return apply(args["input"], args["timestep"], **args["c"])

    monkeypatch.setattr(engine, "show", told.append)
    watched = model.clone()
    watched.set_model_unet_function_wrapper(step)
    request = SamplingRequest(width=side, height=side, steps=1, guidance=1.0)
    engine.sample_pictures(watched, positive, negative, vae, request)
    assert told_before_step == [warned]
    assert not warned or "set width and height to 128" in told[0]
