"""Klein Loader through the real node and the real ComfyUI: sets that fit, sets that do not, hostile files."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from pathlib import Path
from typing import Any

import comfy.sample
import pytest
import torch
from kleinod.nodes.model import engine
from kleinod.nodes.model.choices import AUTOMATIC, NANO, LoaderRequest
from kleinod.nodes.model.folders import fingerprint
from kleinod.nodes.model.nodes import KleinodLoader, KleinodPrompt
from safetensors.torch import load_file, save_file

import nodes as comfy_nodes
from tests.model.headers import header_of, write_header, write_shapes
from tests.model.tiny_klein import dit_shapes, encoder_shapes, make_dit_state, random_conditioning

DIT = "flux-2-klein-base-4b-tiny.safetensors"
ENCODER = "qwen_3_4b-tiny.safetensors"
VAE = "flux2-vae-tiny.safetensors"


def load(diffusion_model: str = DIT, **changes: str) -> tuple[Any, Any, Any, str]:
    """(model, clip, vae, info) of the node, its other inputs as a new node has them."""
    inputs = {
        "weight_dtype": "default",
        "text_encoder": AUTOMATIC,
        "text_encoder_device": "default",
        "vae": AUTOMATIC,
        "variant": "auto",
    }
    return KleinodLoader.execute(diffusion_model, **{**inputs, **changes}).args


def refusal(*arguments: str, **changes: str) -> str:
    """The sentence with which the loader refuses; nothing else may come out of it."""
    with pytest.raises(ValueError) as caught:
        load(*arguments, **changes)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith("."), sentence
    return sentence


def sample(model: Any, conditioning: list, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(1, 128, 4, 4, generator=torch.Generator().manual_seed(seed))
    negative = random_conditioning(9, tokens=512)
    return comfy.sample.sample(
        model, noise, 2, 4.0, "euler", "simple", conditioning, negative, torch.zeros_like(noise), seed=seed
    )


def test_loads_a_set_that_core_nodes_accept(tiny_models: Path) -> None:
    model, clip, vae, info = load()
    positive, negative, _ = KleinodPrompt.execute(clip, "a red apple", "").args
    latent = sample(model, positive)
    assert torch.isfinite(latent).all() and latent.std() > 0
    picture = comfy_nodes.VAEDecode().decode(vae, {"samples": latent})[0]
    assert picture.shape == (1, 64, 64, 3)
    assert comfy_nodes.VAEEncode().encode(vae, picture)[0]["samples"].shape == (1, 128, 4, 4)
    (core,) = comfy_nodes.CLIPTextEncode().encode(clip, "a red apple")
    assert torch.equal(core[0][0], positive[0][0])
    assert not torch.equal(negative[0][0], positive[0][0])
    for words in (
        "1,877,760 parameters",
        "bf16",
        "width 128",
        "2 double and 3 single",
        'the file name says "base"',
        "50 steps at guidance 4",
        "27 of 30 layers",
        ENCODER,
        VAE,
    ):
        assert words in info


def test_model_is_the_one_core_loads(tiny_models: Path) -> None:
    ours = load()[0]
    core = comfy_nodes.UNETLoader().load_unet(DIT, "default")[0]
    assert torch.equal(
        sample(ours, random_conditioning(1, tokens=512)), sample(core, random_conditioning(1, tokens=512))
    )


def test_facts_travel_with_every_clone(tiny_models: Path) -> None:
    model = load(variant="distilled")[0]
    facts = engine.facts_of(model.clone().clone())
    assert facts is engine.facts_of(model)
    assert (facts.variant, facts.decided_by, facts.family) == (
        "distilled",
        "chosen in the variant input",
        "other",
    )
    assert (facts.recommended_steps, facts.recommended_guidance) == (4, 1.0)


def test_facts_of_a_model_from_a_core_loader(tiny_models: Path) -> None:
    core = comfy_nodes.UNETLoader().load_unet(DIT, "default")[0]
    facts, ours = engine.facts_of(core), engine.facts_of(load()[0])
    for name in ("variant", "decided_by", "family", "hidden", "context_width", "parameters", "depth_single"):
        assert getattr(facts, name) == getattr(ours, name)


@pytest.mark.parametrize("dtype", ["fp8_e4m3fn", "fp8_e5m2"])
def test_weight_dtype_goes_through_core(tiny_models: Path, dtype: str) -> None:
    model, _, _, info = load(weight_dtype=dtype)
    weight = model.model.diffusion_model.single_blocks[0].linear1.weight
    assert weight.dtype == getattr(torch, dtype.replace("fp8", "float8"))
    assert f"bf16 loaded as {dtype}" in info
    assert torch.isfinite(sample(model, random_conditioning(1, tokens=512))).all()


def test_scaled_fp8_checkpoint_goes_through_core(tiny_models: Path, model_folders: Path) -> None:
    state = make_dit_state()
    quantised: dict[str, torch.Tensor] = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for key, tensor in state.items():
        if "blocks" in key and tensor.ndim == 2:
            scale = tensor.abs().max() / 448
            quantised[key] = (tensor / scale).to(torch.float8_e4m3fn)
            quantised[key.replace(".weight", ".scale_weight")] = scale.reshape(())
        else:
            quantised[key] = tensor.to(torch.bfloat16)
    save_file(quantised, model_folders / "diffusion_models" / "flux-2-klein-4b-fp8.safetensors")
    copy_parts(tiny_models, model_folders, "text_encoders", "vae")
    model, _, _, info = load("flux-2-klein-4b-fp8.safetensors")
    assert "1,877,760 parameters, fp8 e4m3fn" in info and "Variant: distilled" in info
    save_file(state, model_folders / "diffusion_models" / DIT)
    exact = sample(load()[0], random_conditioning(1, tokens=512))
    rounded = sample(model, random_conditioning(1, tokens=512))
    assert 0 < (rounded - exact).std() / exact.std() < 0.3, "fp8 with its scales is near the exact model"


def copy_parts(source: Path, target: Path, *folders: str) -> None:
    for folder in folders:
        for file in (source / folder).iterdir():
            (target / folder / file.name).symlink_to(file)


def test_automatic_finds_the_parts_that_fit(tiny_models: Path, model_folders: Path) -> None:
    copy_parts(tiny_models, model_folders, "diffusion_models")
    # More likely names, but unfit: a larger encoder, a damaged file, the VAE of FLUX.1.
    write_shapes(model_folders / "text_encoders" / "qwen_3_4b.safetensors", encoder_shapes(2560, 36, 1000))
    (model_folders / "text_encoders" / "qwen3_4b_page.safetensors").write_text("<html>")
    (model_folders / "text_encoders" / "qwen_3_4b.gguf").write_bytes(b"GGUF")
    (model_folders / "text_encoders" / "zzz.safetensors").symlink_to(tiny_models / "text_encoders" / ENCODER)
    write_shapes(model_folders / "vae" / "flux2-vae.safetensors", {"decoder.conv_in.weight": (512, 16, 3, 3)})
    (model_folders / "vae" / "zzz.safetensors").symlink_to(tiny_models / "vae" / VAE)
    info = load()[3]
    assert "Text encoder: zzz.safetensors" in info and "VAE: zzz.safetensors" in info


def test_automatic_with_nothing_that_fits_says_what_to_download(
    tiny_models: Path, model_folders: Path
) -> None:
    copy_parts(tiny_models, model_folders, "diffusion_models")
    assert "no file in models/text_encoders is the Qwen3" in refusal()
    copy_parts(tiny_models, model_folders, "text_encoders")
    assert "download flux2-vae.safetensors" in refusal()


@pytest.fixture
def real_sizes(model_folders: Path) -> Path:
    """Files with the shapes of the real weights and nothing in them: loading one would fill the memory."""
    dit, encoders, vaes = (model_folders / name for name in ("diffusion_models", "text_encoders", "vae"))
    write_shapes(dit / "flux-2-klein-base-4b.safetensors", dit_shapes(3072, 5, 20, 7680))
    write_shapes(dit / "flux-2-klein-9b.safetensors", dit_shapes(4096, 8, 24, 12288))
    write_shapes(encoders / "qwen_3_4b.safetensors", encoder_shapes(2560, 36, 151936, 4096, 1024, 9728))
    write_shapes(encoders / "qwen_3_8b.safetensors", encoder_shapes(4096, 36, 151936, 4096, 1024, 12288))
    write_shapes(encoders / "t5xxl.safetensors", {"encoder.block.0.layer.0.SelfAttention.k.weight": (4, 4)})
    write_shapes(vaes / "ae.safetensors", {"decoder.conv_in.weight": (512, 16, 3, 3)})
    return model_folders


@pytest.mark.parametrize(
    ("model", "changes", "words"),
    [
        ("flux-2-klein-base-4b", {"text_encoder": "qwen_3_8b.safetensors"}, "Qwen3-8B"),
        ("flux-2-klein-9b", {"text_encoder": "qwen_3_4b.safetensors"}, "Qwen3-4B"),
        ("flux-2-klein-base-4b", {"text_encoder": "t5xxl.safetensors"}, "T5 text encoder"),
        ("flux-2-klein-base-4b", {"vae": "ae.safetensors"}, "VAE of FLUX.1"),
        ("flux-2-klein-base-4b", {}, "download flux2-vae.safetensors"),
    ],
)
def test_wrong_pairings_are_refused_before_any_load(
    real_sizes: Path, model: str, changes: dict, words: str
) -> None:
    assert words in refusal(f"{model}.safetensors", **changes)


@pytest.mark.parametrize(
    ("folder", "field"),
    [("diffusion_models", "diffusion_model"), ("text_encoders", "text_encoder"), ("vae", "vae")],
)
def test_wrong_downloads_in_every_picker(
    tiny_models: Path, model_folders: Path, folder: str, field: str
) -> None:
    copy_parts(tiny_models, model_folders, "diffusion_models", "text_encoders", "vae")
    whole = next((tiny_models / folder).iterdir()).read_bytes()
    files = {
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n",
        "page": b"<!DOCTYPE html><html></html>",
        "short": whole[: len(whole) // 2],
        "stub": whole[:300],
    }
    words = {"pointer": "Git LFS", "page": "web page", "short": "cut off", "stub": "cut off"}
    for name, content in files.items():
        (model_folders / folder / f"{name}.safetensors").write_bytes(content)
        picked = {"diffusion_model": DIT, field: f"{name}.safetensors"}
        sentence = refusal(**picked)
        assert sentence.startswith(f'{field} "{name}.safetensors"') and words[name] in sentence


@pytest.mark.parametrize("folder", ["diffusion_models", "text_encoders", "vae"])
def test_corrupted_headers_never_escape_as_another_error(
    tiny_models: Path, model_folders: Path, folder: str
) -> None:
    random_ = random.Random(folder)
    copy_parts(tiny_models, model_folders, *({"diffusion_models", "text_encoders", "vae"} - {folder}))
    name = next((tiny_models / folder).iterdir()).name
    path = model_folders / folder / name
    shutil.copy(tiny_models / folder / name, path)
    whole = path.read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    loaded = 0
    for _ in range(100):
        header = bytearray(whole[:length])
        for _ in range(random_.randint(1, 3)):
            # Digits and names make believable lies; other bytes make nonsense.
            header[random_.randrange(length)] = random_.choice(b'0123456789abiqw"[{,. \x00\xff')
        with path.open("r+b") as file:
            file.write(header)
        try:
            load(DIT, text_encoder=ENCODER, vae=VAE)
            loaded += 1
        except ValueError:
            pass
    assert loaded < 30


def test_shapes_that_lie_consistently_end_in_a_sentence(tiny_models: Path, model_folders: Path) -> None:
    copy_parts(tiny_models, model_folders, "text_encoders", "vae")
    shapes = dit_shapes()
    shapes["single_blocks.1.linear2.weight"] = shapes["single_blocks.1.linear2.weight"][::-1]
    write_shapes(model_folders / "diffusion_models" / DIT, shapes)
    assert "could not be loaded although it looked right" in refusal()


def test_hostile_quantisation_metadata(tiny_models: Path, model_folders: Path) -> None:
    copy_parts(tiny_models, model_folders, "text_encoders", "vae")
    path = model_folders / "diffusion_models" / DIT
    for value in ("{", "[]", '{"layers": 3}', '{"layers": {"img_in": "x"}}'):
        write_header(path, header_of(dit_shapes(), metadata={"_quantization_metadata": value}))
        with pytest.raises(ValueError):
            load()


def test_gguf_without_its_pack_is_listed_and_names_the_pack(tiny_models: Path, model_folders: Path) -> None:
    copy_parts(tiny_models, model_folders, "diffusion_models", "text_encoders", "vae")
    for folder in ("diffusion_models", "text_encoders"):
        (model_folders / folder / "sub").mkdir()
        (model_folders / folder / "sub" / "klein-4b-Q4_K_M.gguf").write_bytes(b"GGUF")
    name = os.path.join("sub", "klein-4b-Q4_K_M.gguf")
    options = {entry.id: entry.options for entry in KleinodLoader.define_schema().inputs}
    assert name in options["diffusion_model"] and name in options["text_encoder"]
    assert "ComfyUI-GGUF" in refusal(name)
    assert "ComfyUI-GGUF" in refusal(DIT, text_encoder=name)


def test_gguf_goes_to_the_pack_that_reads_it(
    tiny_models: Path, model_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for ComfyUI-GGUF's two nodes, which are not installed here: same names, same signatures."""
    import comfy.sd

    from tests.model.tiny_klein import load_tiny_model, tiny_clip

    class UnetLoaderGGUF:
        FUNCTION = "load_unet"

        def load_unet(self, unet_name: str) -> tuple:
            assert unet_name == "flux-2-klein-base-4b-Q4_K_M.gguf"
            return (load_tiny_model(),)

    class CLIPLoaderGGUF:
        FUNCTION = "load_clip"

        def load_clip(self, clip_name: str, type: str = "stable_diffusion") -> tuple:
            assert hasattr(comfy.sd.CLIPType, type.upper()) and type == "flux2"
            return (tiny_clip(width=128 if "wrong" in clip_name else 64),)

    monkeypatch.setitem(comfy_nodes.NODE_CLASS_MAPPINGS, "UnetLoaderGGUF", UnetLoaderGGUF)
    monkeypatch.setitem(comfy_nodes.NODE_CLASS_MAPPINGS, "CLIPLoaderGGUF", CLIPLoaderGGUF)
    copy_parts(tiny_models, model_folders, "vae")
    model, clip, _, info = load("flux-2-klein-base-4b-Q4_K_M.gguf", text_encoder="qwen.gguf")
    assert engine.facts_of(model).dtype == "GGUF Q4_K_M" and "1,877,760 parameters" in info
    positive = KleinodPrompt.execute(clip, "a red apple", "").args[0]
    (core,) = comfy_nodes.CLIPTextEncode().encode(tiny_clip(), "a red apple")
    assert torch.equal(core[0][0], positive[0][0])
    assert len(clip.cond_stage_model.qwen3_4b.transformer.model.layers) == 27
    wrong = refusal("flux-2-klein-base-4b-Q4_K_M.gguf", text_encoder="wrong.gguf")
    assert wrong.startswith('text_encoder "wrong.gguf" is a Qwen3 of width 128')
    assert "weight_dtype" in refusal("flux-2-klein-base-4b-Q4_K_M.gguf", weight_dtype="fp8_e5m2")


def test_taef2_serves_as_vae_for_any_side(tiny_models: Path, model_folders: Path) -> None:
    from comfy.taesd.taesd import TAESD

    state = TAESD(latent_channels=128).state_dict()
    for half in ("encoder", "decoder"):
        prefix = f"taesd_{half}."
        part = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
        save_file(part, model_folders / "vae_approx" / f"taef2_{half}.safetensors")
    copy_parts(tiny_models, model_folders, "diffusion_models", "text_encoders")
    vae = load(vae="taef2")[2]
    picture = torch.rand(1, 72, 100, 3, generator=torch.Generator().manual_seed(0))
    latent = comfy_nodes.VAEEncode().encode(vae, picture)[0]
    assert latent["samples"].shape == (1, 128, 4, 6)
    assert comfy_nodes.VAEDecodeTiled().decode(vae, latent, 64)[0].shape == (1, 64, 96, 3)
    before = fingerprint(LoaderRequest(DIT, vae="taef2"))
    os.utime(model_folders / "vae_approx" / "taef2_encoder.safetensors", ns=(1, 1))
    assert fingerprint(LoaderRequest(DIT, vae="taef2")) != before


def test_nano_ignores_the_other_pickers(model_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the built-in weights, so that this test holds whatever they are."""
    import sys
    from types import SimpleNamespace

    from tests.model.tiny_klein import load_tiny_model, tiny_clip, tiny_vae

    parts = load_tiny_model(), tiny_clip(), tiny_vae()
    monkeypatch.setitem(sys.modules, "kleinod.nodes.model.nano", SimpleNamespace(load_nano=lambda: parts))
    said: list[str] = []
    monkeypatch.setattr(engine, "warn", said.append)
    assert "Not used" not in load(NANO)[3] and said == []
    model, clip, vae, info = load(NANO, text_encoder="gone", vae="gone", weight_dtype="fp8_e5m2")
    (unused,) = said
    assert unused in info
    assert "Not used: text_encoder 'gone', vae 'gone', weight_dtype 'fp8_e5m2'." in unused
    assert (model, clip, vae) == parts
    facts = engine.facts_of(model.clone())
    assert (facts.family, facts.recommended_steps, facts.recommended_guidance) == ("nano", 28, 4.0)
    assert facts.parameters == 1_877_760 and facts.native_size == (128, 128)
    assert "other pickers are not used" in info


def test_pickers_without_any_file(model_folders: Path) -> None:
    defaults = {entry.id: entry.default for entry in KleinodLoader.define_schema().inputs}
    assert defaults == {
        "diffusion_model": NANO,
        "weight_dtype": "default",
        "text_encoder": AUTOMATIC,
        "text_encoder_device": "default",
        "vae": AUTOMATIC,
        "variant": "auto",
    }


def test_replaced_files_are_noticed(tiny_models: Path, model_folders: Path) -> None:
    for folder in ("diffusion_models", "text_encoders", "vae"):
        for file in (tiny_models / folder).iterdir():
            shutil.copy(file, model_folders / folder / file.name)
    inputs = {
        "diffusion_model": DIT,
        "weight_dtype": "default",
        "text_encoder": ENCODER,
        "text_encoder_device": "default",
        "vae": AUTOMATIC,
        "variant": "auto",
    }
    first = KleinodLoader.fingerprint_inputs(**inputs)
    assert isinstance(first, str) and KleinodLoader.fingerprint_inputs(**inputs) == first
    seen = {first}
    for path in (model_folders / "diffusion_models" / DIT, model_folders / "text_encoders" / ENCODER,
                 model_folders / "vae" / VAE):  # fmt: skip
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
        seen.add(KleinodLoader.fingerprint_inputs(**inputs))
    assert len(seen) == 4
    nano = {**inputs, "diffusion_model": NANO}
    assert KleinodLoader.fingerprint_inputs(**nano) == KleinodLoader.fingerprint_inputs(
        **nano,
    )
    gone = KleinodLoader.fingerprint_inputs(**{**inputs, "diffusion_model": "gone.safetensors"})
    assert isinstance(gone, str)


def test_a_workflow_naming_a_missing_file_gets_comfyuis_own_error(
    tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import execution

    monkeypatch.setitem(comfy_nodes.NODE_CLASS_MAPPINGS, "KleinodLoader", KleinodLoader)
    inputs = {
        "diffusion_model": DIT,
        "weight_dtype": "default",
        "text_encoder": AUTOMATIC,
        "text_encoder_device": "default",
        "vae": AUTOMATIC,
        "variant": "auto",
    }

    def check(**changes: str) -> list[str]:
        prompt = {"1": {"class_type": "KleinodLoader", "inputs": {**inputs, **changes}}}
        _, errors, _ = asyncio.run(execution.validate_inputs("test", prompt, "1", {}))
        return [error["type"] for error in errors]

    assert check() == []
    assert check(diffusion_model="flux-2-klein-9b.safetensors") == ["value_not_in_list"]
    assert check(text_encoder="gone.safetensors") == ["value_not_in_list"]
    assert check(diffusion_model=NANO) == []


def test_missing_keys_in_the_file_are_named(tiny_models: Path, model_folders: Path) -> None:
    copy_parts(tiny_models, model_folders, "text_encoders", "vae")
    state = load_file(tiny_models / "diffusion_models" / DIT)
    del state["double_blocks.1.txt_mlp.2.weight"]
    save_file(state, model_folders / "diffusion_models" / DIT)
    assert "double_blocks.1.txt_mlp.2" in refusal()


def test_automatic_prefers_the_encoder_klein_was_trained_with(tiny_models: Path, model_folders: Path) -> None:
    """FLUX 3's Qwen3-VL has the same sizes: it is taken where nothing else fits, and info says what it is."""
    copy_parts(tiny_models, model_folders, "diffusion_models", "vae")
    state = load_file(tiny_models / "text_encoders" / ENCODER)
    seeing = {key.replace("model.", "model.language_model.", 1): value for key, value in state.items()}
    save_file(seeing, model_folders / "text_encoders" / "qwen_3_4b.safetensors")
    *_, info = load()
    assert (
        "Text encoder: qwen_3_4b.safetensors" in info and "a vision-language model of the same sizes" in info
    )
    shutil.copy(tiny_models / "text_encoders" / ENCODER, model_folders / "text_encoders" / "zzz.safetensors")
    *_, info = load()
    assert "Text encoder: zzz.safetensors" in info and "vision-language" not in info
