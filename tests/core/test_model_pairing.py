"""Every wrong pairing of diffusion model, text encoder and VAE has its own sentence, from headers alone."""

from __future__ import annotations

import pytest
import torch
from kleinod_pure.base.safetensors import Entry, Header
from kleinod_pure.model.pairing import (
    check_diffusion_model,
    check_text_encoder,
    check_vae,
    describe_kind,
)
from kleinod_pure.sampling.checks import check_conditioning

from tests.model.tiny_klein import dit_shapes, encoder_shapes

KLEIN_4B = dit_shapes(3072, 5, 20, 7680)
KLEIN_9B = dit_shapes(4096, 8, 24, 12288)
QWEN3_4B = encoder_shapes(2560, 36, 151936, 4096, 1024, 9728)
QWEN3_8B = encoder_shapes(4096, 36, 151936, 4096, 1024, 12288)
FLUX2_VAE = {
    "encoder.conv_in.weight": (128, 3, 3, 3),
    "encoder.conv_out.weight": (64, 512, 3, 3),
    "decoder.conv_in.weight": (512, 32, 3, 3),
    "decoder.conv_out.weight": (3, 128, 3, 3),
    "bn.running_mean": (128,),
    "bn.running_var": (128,),
}


def header(
    shapes: dict, field: str = "diffusion_model", name: str = "file.safetensors", dtype: str = "BF16"
) -> Header:
    return Header(field, name, {key: Entry(dtype, tuple(shape)) for key, shape in shapes.items()})


def sentence(check, *arguments) -> str:
    with pytest.raises(ValueError) as caught:
        check(*arguments)
    text = str(caught.value)
    assert text.startswith(f"{arguments[0].label} ") and text.endswith(".") and "\n" not in text, text
    return text


FACTS_4B = check_diffusion_model(header(KLEIN_4B, name="flux-2-klein-base-4b.safetensors"))
FACTS_9B = check_diffusion_model(header(KLEIN_9B))


def test_the_right_sets_pass() -> None:
    assert FACTS_4B.family == "4b" and FACTS_4B.variant == "base"
    sizes = check_text_encoder(header(QWEN3_4B, "text_encoder"), FACTS_4B)
    assert sizes == {
        "vocab_size": 151936,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_hidden_layers": 27,
        "layers_stored": 36,
    }
    check_text_encoder(header(QWEN3_8B, "text_encoder"), FACTS_9B)
    check_vae(header(FLUX2_VAE, "vae"))


def test_whole_checkpoints_and_new_norm_names_pass() -> None:
    whole = {f"model.diffusion_model.{key.replace('.scale', '.weight')}": s for key, s in KLEIN_4B.items()}
    whole |= {f"text_encoders.qwen3_4b.transformer.{key}": s for key, s in QWEN3_4B.items()}
    facts = check_diffusion_model(header(whole))
    assert facts == check_diffusion_model(header(KLEIN_4B))


def test_packed_four_bit_text_input_shows_half_its_width() -> None:
    entries = {key: Entry("BF16", shape) for key, shape in KLEIN_4B.items()}
    entries["txt_in.weight"] = Entry("U8", (3072, 3840))
    entries["txt_in.weight_scale"] = Entry("F8_E4M3", (3072, 480))
    facts = check_diffusion_model(Header("diffusion_model", "nvfp4.safetensors", entries))
    assert (facts.family, facts.context_width, facts.parameters) == ("4b", 7680, 3_875_544_576)


def test_9b_encoder_with_4b_model_and_reverse() -> None:
    text = sentence(check_text_encoder, header(QWEN3_8B, "text_encoder"), FACTS_4B)
    assert "Qwen3-8B" in text and "a 4B Klein" in text and "qwen_3_4b.safetensors" in text
    text = sentence(check_text_encoder, header(QWEN3_4B, "text_encoder"), FACTS_9B)
    assert "Qwen3-4B" in text and "a 9B Klein" in text and "qwen_3_8b" in text


@pytest.mark.parametrize(("width", "name"), [(1024, "Qwen3-0.6B"), (2048, "Qwen3-1.7B"), (5120, "Qwen3-14B")])
def test_other_qwen3_sizes_are_named(width: int, name: str) -> None:
    assert name in sentence(check_text_encoder, header(encoder_shapes(width, 40), "text_encoder"), FACTS_4B)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["encoder.block.0.layer.0.SelfAttention.k.weight", "shared.weight"], "a T5 text encoder"),
        (["text_model.encoder.layers.0.mlp.fc1.weight"], "a CLIP text encoder"),
        (["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.bias"], "a Qwen2.5 text encoder"),
        (
            ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"],
            "a language model other than",
        ),
        (
            ["model.layers.0.self_attn.q_norm.weight", "model.layers.0.pre_feedforward_layernorm.weight"],
            "a Gemma",
        ),
        (["decoder.conv_in.weight"], "a VAE"),
        (["double_stream_modulation_img.lin.weight"], "a FLUX.2 diffusion model"),
        (["wholly.unknown"], "something this node does not know"),
    ],
)
def test_what_is_no_qwen3_is_named(keys: list[str], words: str) -> None:
    text = sentence(check_text_encoder, header(dict.fromkeys(keys, (8, 8)), "text_encoder"), FACTS_4B)
    assert words in text and "qwen_3_4b.safetensors" in text


def test_shortened_or_incomplete_encoders() -> None:
    short = encoder_shapes(2560, 26, 151936, 4096, 1024, 9728)
    assert "has 26 layers, but Klein reads the output of layer 27" in sentence(
        check_text_encoder, header(short, "text_encoder"), FACTS_4B
    )
    assert check_text_encoder(
        header(encoder_shapes(2560, 27, 151936, 4096, 1024, 9728), "text_encoder"), FACTS_4B
    )
    lacking = {key: shape for key, shape in QWEN3_4B.items() if key != "model.layers.13.mlp.up_proj.weight"}
    assert "model.layers.13.mlp.up_proj" in sentence(
        check_text_encoder, header(lacking, "text_encoder"), FACTS_4B
    )
    # A layer that nobody reads may be missing.
    unread = {key: shape for key, shape in QWEN3_4B.items() if key != "model.layers.30.mlp.up_proj.weight"}
    assert check_text_encoder(header(unread, "text_encoder"), FACTS_4B)


def test_qwen3_vl_names_are_read_through() -> None:
    nested = {key.replace("model.", "model.language_model.", 1): shape for key, shape in QWEN3_4B.items()}
    nested["model.visual.patch_embed.proj.weight"] = (8, 8)
    assert check_text_encoder(header(nested, "text_encoder"), FACTS_4B)["hidden_size"] == 2560


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["double_blocks.0.img_attn.norm.key_norm.scale", "img_in.weight"], "a FLUX.1 diffusion model"),
        (["context_refiner.0.attention.q_norm.weight"], "a Z-Image or Lumina"),
        (["transformer_blocks.0.img_mod.1.weight"], "a Qwen-Image"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "SDXL"),
        (["model.layers.0.self_attn.q_norm.weight"], "a Qwen3 text encoder"),
        (["encoder.conv_in.weight"], "a VAE"),
        (["diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight"], "a LoRA"),
        (["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"], "a LoRA"),
    ],
)
def test_what_is_no_klein_is_named(keys: list[str], words: str) -> None:
    text = sentence(check_diffusion_model, header(dict.fromkeys(keys, (8, 8))))
    assert words in text and "not FLUX.2 [klein]" in text


def test_flux2_dev_and_diffusers_layout() -> None:
    dev = dit_shapes(6144, 8, 48, 15360) | {"guidance_in.in_layer.weight": (6144, 256)}
    assert "FLUX.2 [dev]" in sentence(check_diffusion_model, header(dev))
    diffusers = {"double_stream_modulation_img.linear.weight": (8, 8), "x_embedder.weight": (8, 8)}
    assert "diffusers layout" in sentence(check_diffusion_model, header(diffusers))


@pytest.mark.parametrize(
    "key", ["txt_in.weight", "single_blocks.19.linear2.weight", "final_layer.linear.weight"]
)
def test_missing_weights_are_named(key: str) -> None:
    lacking = {name: shape for name, shape in KLEIN_4B.items() if name != key}
    assert key.removesuffix(".weight") in sentence(check_diffusion_model, header(lacking))


def test_impossible_shapes_are_refused() -> None:
    for shape in [(3072,), (3000, 128), (3072, 64)]:
        sentence(check_diffusion_model, header(KLEIN_4B | {"img_in.weight": shape}))
    sentence(check_diffusion_model, header(KLEIN_4B | {"txt_in.weight": ()}))
    attention = "model.layers.0.self_attn"
    for key, shape in [
        ("model.embed_tokens.weight", (7,)),
        (f"{attention}.q_proj.weight", (100, 2560)),
        (f"{attention}.k_proj.weight", (0, 2560)),
    ]:
        sentence(check_text_encoder, header(QWEN3_4B | {key: shape}, "text_encoder"), FACTS_4B)


def test_wrong_vaes() -> None:
    flux1 = {**FLUX2_VAE, "decoder.conv_in.weight": (512, 16, 3, 3)}
    for key in ("bn.running_mean", "bn.running_var"):
        del flux1[key]
    assert "VAE of FLUX.1" in sentence(check_vae, header(flux1, "vae"))
    sdxl = {**flux1, "decoder.conv_in.weight": (512, 4, 3, 3)}
    assert "another model (4 latent channels)" in sentence(check_vae, header(sdxl, "vae"))
    video = {**FLUX2_VAE, "decoder.conv_in.weight": (512, 32, 3, 3, 3)}
    assert "another model" in sentence(check_vae, header(video, "vae"))
    plain = {key: shape for key, shape in FLUX2_VAE.items() if not key.startswith("bn.")}
    assert "another model" in sentence(check_vae, header(plain, "vae"))
    half = {key: shape for key, shape in FLUX2_VAE.items() if not key.startswith("encoder.")}
    assert "encoder.conv_in.weight" in sentence(check_vae, header(half, "vae"))
    assert "it is a FLUX.2 diffusion model" in sentence(check_vae, header(KLEIN_4B, "vae"))
    assert "no decoder" in sentence(check_vae, header({"encoder.conv_in.weight": (1, 1)}, "vae"))
    assert "a preview VAE" in sentence(check_vae, header({"taesd_decoder.1.weight": (64, 32, 3, 3)}, "vae"))


@pytest.mark.parametrize(
    ("width", "words"),
    [(2560, r"Qwen3-4B loaded for Z-Image.*klein\] 4B"), (12288, "Qwen3-8B, FLUX.2")],
)
def test_conditioning_of_another_width(width: int, words: str) -> None:
    with pytest.raises(ValueError, match=f"negative comes from the wrong text encoder .*{words}"):
        check_conditioning("negative", [[torch.zeros(1, 2, width), {}]], 7680)


def test_kinds_do_not_depend_on_key_order() -> None:
    assert describe_kind(reversed(list(KLEIN_4B))) == describe_kind(KLEIN_4B) == "a FLUX.2 diffusion model"
