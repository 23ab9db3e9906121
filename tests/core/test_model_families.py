"""FLUX 3, vision-language encoders and files with an attention of their own, told from headers alone."""

from __future__ import annotations

import pytest
from kleinod_pure.base.families import FLUX3_IMAGE, FLUX3_OTHER, find_flux3
from kleinod_pure.base.safetensors import Entry, Header
from kleinod_pure.loras.plan import guess_model, plan_file
from kleinod_pure.loras.targets import Architecture
from kleinod_pure.model.facts import describe
from kleinod_pure.model.pairing import check_diffusion_model, check_text_encoder, describe_kind, sees_pictures

from tests.model.flux3 import flux3_shapes
from tests.model.tiny_klein import dit_shapes, encoder_shapes

KLEIN_4B = dit_shapes(3072, 5, 20, 7680)
QWEN3_4B = encoder_shapes(2560, 36, 151936, 4096, 1024, 9728)


def header(shapes: dict, field: str = "diffusion_model", dtype: str = "BF16") -> Header:
    return Header(
        field, "file.safetensors", {key: Entry(dtype, tuple(shape)) for key, shape in shapes.items()}
    )


def kohya(name: str) -> str:
    return "lora_unet_" + name.replace(".", "_")


@pytest.mark.parametrize("spell", [str, kohya], ids=["dots", "underscores"])
def test_flux3_is_known_by_any_of_its_parts(spell) -> None:
    names = [spell(name.removesuffix(".weight")) for name in flux3_shapes()]
    assert find_flux3(names) == FLUX3_IMAGE
    assert find_flux3([name for name in names if "single_blocks" in name]) == FLUX3_IMAGE
    video = flux3_shapes(streams=("video", "audio"))
    assert find_flux3(spell(name) for name in video) == FLUX3_OTHER
    assert find_flux3(spell(name) for name in KLEIN_4B) == ""


def test_a_lora_for_flux3_is_a_lora_and_is_named_where_it_does_not_fit() -> None:
    pairs = {}
    for block in range(3):
        for module in ("q_proj", "attn_out"):
            pairs[f"diffusion_model.single_blocks.{block}.{module}.lora_A.weight"] = (16, 3072)
            pairs[f"diffusion_model.single_blocks.{block}.{module}.lora_B.weight"] = (3072, 16)
    file = header(pairs, "lora")
    assert describe_kind(pairs) == "a LoRA"
    assert guess_model(file) == FLUX3_IMAGE
    shapes = {key.rsplit(".", 1)[0]: shape for key, shape in KLEIN_4B.items()}
    with pytest.raises(ValueError, match="was trained for FLUX 3 Image Klein, but the model is"):
        plan_file(file, Architecture(shapes))


def test_a_file_that_chooses_its_attention_is_said_and_not_counted() -> None:
    plain = check_diffusion_model(header(KLEIN_4B))
    own = {f"double_blocks.{block}.comfy_attention.config": (97,) for block in range(5)}
    table = dict(header(KLEIN_4B).tensors) | {key: Entry("U8", shape) for key, shape in own.items()}
    facts = check_diffusion_model(Header("diffusion_model", "file.safetensors", table))
    assert facts.parameters == plain.parameters and facts.own_attention == 5
    assert any("5 of 25 blocks (int8)" in line for line in describe(facts))
    assert not any("Attention" in line for line in describe(plain))


def test_a_vision_language_encoder_fits_by_its_sizes_and_is_known_as_one() -> None:
    facts = check_diffusion_model(header(KLEIN_4B))
    nested = {key.replace("model.", "model.language_model.", 1): shape for key, shape in QWEN3_4B.items()}
    nested["model.visual.patch_embed.proj.weight"] = (1024, 3, 2, 16, 16)
    seeing = header(nested, "text_encoder")
    assert check_text_encoder(seeing, facts) == check_text_encoder(header(QWEN3_4B, "text_encoder"), facts)
    assert sees_pictures(seeing) and not sees_pictures(header(QWEN3_4B, "text_encoder"))
