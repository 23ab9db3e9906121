"""Models that share FLUX.2's latents but are not FLUX.2: every node names them and says what runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.supported_models
import pytest
import torch
from kleinod.nodes.acceleration.patch import accelerate
from kleinod.nodes.base.families import name_other_family
from kleinod.nodes.base.flux2 import LATENT_CHANNELS
from kleinod.nodes.base.values import Acceleration
from kleinod.nodes.loras.nodes import KleinodLoraStack
from kleinod.nodes.model.nodes import KleinodLoader, KleinodPrompt
from kleinod.nodes.sampling.nodes import KleinodSampler

from tests.model.flux3 import CONTEXT, flux3_model, flux3_shapes
from tests.model.headers import write_shapes
from tests.model.tiny_klein import load_tiny_model, random_conditioning, tiny_vae

ENCODER = ("text_encoders", "qwen_3_4b-tiny.safetensors")


def sentence(work: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(ValueError) as caught:
        work(*arguments, **named)
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text, text
    return text


def sample(model: Any, width: int = CONTEXT) -> None:
    steering = random_conditioning(width=width)
    KleinodSampler.execute(
        model=model, positive=steering, negative=steering, vae=tiny_vae(), seed=1, steps=2, guidance=4.0,
        width=128, height=128, scheduler="Default", results=1, strength=0.8,
    )  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_loader_names_flux3_and_the_way_on(tiny_models: Path, tmp_path: Path, prefix: str) -> None:
    name = "flux3-image-klein-base-bf16.safetensors"
    shapes = {f"{prefix}{key}": shape for key, shape in flux3_shapes().items()}
    path = write_shapes(tiny_models / "diffusion_models" / name, shapes)
    try:
        text = sentence(KleinodLoader.execute, name, "default", "automatic", "default", "automatic", "auto")
    finally:
        path.unlink()
    assert text.startswith(f'diffusion_model "{name}" is FLUX 3 Image Klein, ')
    assert "Load CLIP with type flux3" in text and "Templates" in text


def test_sampler_names_flux3_and_the_way_on() -> None:
    text = sentence(sample, flux3_model())
    assert text.startswith("model is FLUX 3 Image Klein, ") and "Templates" in text


def test_lora_stack_names_flux3() -> None:
    text = sentence(KleinodLoraStack.execute, model=flux3_model(), rows="some.safetensors 1")
    assert "model is FLUX 3 Image Klein" in text or "some.safetensors" in text
    from kleinod.nodes.loras.engine import read_architecture

    assert sentence(read_architecture, flux3_model()).startswith("model is FLUX 3 Image Klein, ")


CACHES = {
    "first_block": Acceleration("none", fb_cache=True),
    "dual_block": Acceleration("none", db_cache=True),
    "tea": Acceleration("none", tea_cache=True),
    "refresh": Acceleration("none", reference_cache="refresh"),
    "exact": Acceleration("none", reference_cache="exact (9B-KV)"),
}


@pytest.mark.parametrize("settings", CACHES.values(), ids=list(CACHES))
def test_caches_name_flux3(settings: Acceleration) -> None:
    assert "the connected model is FLUX 3 Image Klein." in sentence(accelerate, flux3_model(), settings)


class OtherClip:
    """A CLIP for FLUX 3 as a node meets it: tokens under its own name, conditioning of 8 taps."""

    def __init__(self, tokens: str) -> None:
        self.tokens = tokens

    def tokenize(self, text: str) -> dict:
        return {self.tokens: [[(1, 1.0)] * 8]}

    def encode_from_tokens_scheduled(self, tokens: dict) -> list:
        return random_conditioning(width=CONTEXT)


@pytest.mark.parametrize("tokens", ["qwen3vl_4b", "qwen3_4b"])
def test_prompt_refuses_flux3s_text_encoder(tokens: str) -> None:
    text = sentence(KleinodPrompt.execute, OtherClip(tokens), "an apple", "")
    assert text.startswith("clip ") and "Load CLIP with type flux2" in text
    assert "qwen3vl_4b" in text or "FLUX 3" in text


def test_sampler_says_whose_conditioning_it_was_given() -> None:
    assert "Qwen3-VL-4B, FLUX 3" in sentence(sample, load_tiny_model())


def _others() -> list[type]:
    """Every model of the ComfyUI under test that has FLUX.2's latents and is not FLUX.2."""
    return [
        config
        for config in comfy.supported_models.models
        if config.latent_format is comfy.latent_formats.Flux2
        and config.unet_config.get("image_model") != "flux2"
    ]


def test_every_other_model_of_this_comfyui_with_flux2s_latents_is_refused() -> None:
    """The latent format alone let ERNIE-Image and Lens through, too."""
    assert len(_others()) >= 2
    for config in _others():

        class Network(torch.nn.Module):
            params = None

        model = flux3_model()
        model.model.diffusion_model = Network()
        model.model.model_config = config(dict(config.unet_config, hidden_size=64))
        model.model.__class__ = type(config.__name__, (type(model.model),), {})
        text = sentence(sample, model)
        assert text.startswith(f"model is {config.__name__}, ") and "flux3" not in text


def test_flux2_itself_is_no_other_family() -> None:
    model = load_tiny_model()
    assert name_other_family(model) == ""
    model.model.model_config = None  # as loaders of other packs may leave it
    assert name_other_family(model) == ""
    assert model.get_model_object("latent_format").latent_channels == LATENT_CHANNELS
