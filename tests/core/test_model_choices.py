"""What the pickers prefer: the files an artist has, by their usual names."""

from __future__ import annotations

import pytest
from kleinod_pure.model.choices import (
    AUTOMATIC,
    NANO,
    by_likeness,
    default_model,
    default_text_encoder,
    default_vae,
    gguf_quantisation,
    is_gguf,
    text_encoders_to_try,
    vaes_to_try,
)

MODELS = [
    NANO,
    "flux1-dev.safetensors",
    "flux-2-klein-9b.safetensors",
    "flux-2-klein-4b.safetensors",
    "sub/flux-2-klein-base-4b-fp8.safetensors",
    "flux-2-klein-base-4b.safetensors",
]


def test_default_model_is_base_4b_then_4b_then_nano() -> None:
    assert default_model(MODELS) == "sub/flux-2-klein-base-4b-fp8.safetensors"
    assert default_model(MODELS[:4]) == "flux-2-klein-4b.safetensors"
    assert default_model(MODELS[:3]) == NANO
    assert default_model([NANO]) == NANO
    assert default_model(["FLUX.2-Klein-4B-Base-Q4.gguf"]) == "FLUX.2-Klein-4B-Base-Q4.gguf"


def test_default_text_encoder() -> None:
    names = ["clip_l.safetensors", "qwen3vl_4b.safetensors", "qwen_3_8b.safetensors", "qwen_3_4b.safetensors"]
    assert default_text_encoder(names) == "qwen_3_4b.safetensors"
    assert default_text_encoder(["t5xxl.safetensors", "qwen_2.5_vl_7b.safetensors"]) == AUTOMATIC
    assert default_text_encoder([]) == AUTOMATIC


def test_default_vae() -> None:
    assert default_vae(["ae.safetensors", "taef2", "flux2-vae.safetensors"]) == "flux2-vae.safetensors"
    assert default_vae(["ae.safetensors", "taef2"]) == "taef2"
    assert default_vae(["ae.safetensors"]) == AUTOMATIC


def test_automatic_looks_into_every_file_likely_ones_first() -> None:
    names = ["a.safetensors", "qwen_3_8b_fp8mixed.safetensors", "Qwen3-4B.safetensors"]
    assert text_encoders_to_try(names, 2560)[0] == "Qwen3-4B.safetensors"
    assert text_encoders_to_try(names, 4096)[0] == "qwen_3_8b_fp8mixed.safetensors"
    assert sorted(text_encoders_to_try(names, 64)) == sorted(names)
    assert vaes_to_try(["ae.safetensors", "flux2-vae.safetensors"]) == [
        "flux2-vae.safetensors",
        "ae.safetensors",
    ]


def test_folders_do_not_count_as_names() -> None:
    assert (
        by_likeness(["klein/other.safetensors", "x/klein.safetensors"], ["klein"])[0] == "x/klein.safetensors"
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("flux-2-klein-4b-Q4_K_M.gguf", "GGUF Q4_K_M"),
        ("flux-2-klein-base-4b-BF16.gguf", "GGUF BF16"),
        ("klein.gguf", "GGUF"),
    ],
)
def test_gguf_names(name: str, words: str) -> None:
    assert is_gguf(name) and gguf_quantisation(name) == words
    assert not is_gguf("flux-2-klein-4b.safetensors")
