"""The tiny Klein that other tests stand on must be what it claims to be."""

from __future__ import annotations

import comfy.model_base
import comfy.sample
import torch

from tests.model.tiny_klein import load_tiny_model, make_dit_state, random_conditioning, tiny_vae


def test_comfyui_detects_it_as_flux2_and_every_weight_is_used() -> None:
    model = load_tiny_model()
    assert type(model.model) is comfy.model_base.Flux2
    config = model.model.model_config.unet_config
    assert (config["hidden_size"], config["depth"], config["depth_single_blocks"]) == (128, 2, 3)
    # Files carry BFL's `.scale`; ComfyUI renames it to `.weight` while loading.
    assert set(model.model.diffusion_model.state_dict()) == {
        key.replace("_norm.scale", "_norm.weight") for key in make_dit_state()
    }


def test_seed_alone_decides_the_weights() -> None:
    first, again, other = make_dit_state(1), make_dit_state(1), make_dit_state(2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["img_in.weight"], other["img_in.weight"])


def test_samples_and_decodes() -> None:
    latent = torch.zeros(1, 128, 4, 4)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    positive, negative = random_conditioning(1), random_conditioning(2)
    model = load_tiny_model()
    out = comfy.sample.sample(model, noise, 2, 4.0, "euler", "simple", positive, negative, latent, seed=0)
    swapped = comfy.sample.sample(model, noise, 2, 4.0, "euler", "simple", negative, positive, latent, seed=0)
    assert (out - swapped).abs().mean() > 0.1, "the conditioning must steer the picture"
    assert tiny_vae().decode(out).shape == (1, 64, 64, 3)
