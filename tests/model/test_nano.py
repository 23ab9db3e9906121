"""klein-nano as users meet it: through Klein Loader, Klein Prompt and Klein Sampler, by what can be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kleinod.nodes.model.choices import AUTOMATIC, NANO
from kleinod.nodes.model.nano import WEIGHTS
from kleinod.nodes.model.nodes import KleinodLoader, KleinodPrompt
from kleinod.nodes.references.prepare import Preparation, prepare_references
from kleinod.nodes.sampling.nodes import KleinodSampler

BACKGROUNDS = {"blue": (92, 146, 222), "yellow": (250, 220, 104), "white": (244, 244, 244)}


@pytest.fixture(scope="module")
def nano():
    return KleinodLoader.execute(NANO, "default", AUTOMATIC, "default", AUTOMATIC, "auto").args


def paint(
    nano, prompt: str, width: int = 128, references=(), guidance: float = 4.0, seed: int = 5
) -> np.ndarray:
    model, clip, vae = nano[:3]
    value = None
    if references:
        images = {f"image_{n}": torch.from_numpy(p)[None] for n, p in enumerate(references, start=1)}
        value = prepare_references(images, Preparation())
    positive, negative = KleinodPrompt.execute(clip, prompt, "", value, vae).args[:2]
    with torch.inference_mode():
        made = KleinodSampler.execute(
            model, positive, negative, vae, width, 128, 28, guidance, seed, "Default", 1
        )
    return made.args[0][0].numpy()


def edge_colour(picture: np.ndarray) -> np.ndarray:
    return (
        np.median(np.concatenate((picture[:10].reshape(-1, 3), picture[-10:].reshape(-1, 3))), axis=0) * 255
    )


def middle(picture: np.ndarray) -> np.ndarray:
    """Mean colour of the central quarter."""
    h, w, _ = picture.shape
    return picture[h // 4 : -h // 4, w // 4 : -w // 4].mean((0, 1)) * 255


@pytest.mark.parametrize("colour", BACKGROUNDS)
def test_the_background_is_the_one_asked_for(nano, colour: str) -> None:
    picture = paint(nano, f"a tomato on a {colour} background")
    distances = {name: np.abs(edge_colour(picture) - rgb).max() for name, rgb in BACKGROUNDS.items()}
    assert min(distances, key=distances.get) == colour
    assert distances[colour] < 25


def test_the_subject_is_the_one_asked_for(nano) -> None:
    tomato = middle(paint(nano, "a tomato on a white background"))
    frog = middle(paint(nano, "a frog on a white background"))
    assert tomato[0] - tomato[1] > frog[0] - frog[1] + 60


def test_a_reference_is_kept_on_a_new_background(nano) -> None:
    tomato = paint(nano, "a tomato on a white background")
    edited = paint(nano, "image 1 on a blue background", references=[tomato])
    assert np.abs(edge_colour(edited) - BACKGROUNDS["blue"]).max() < 25
    assert np.abs(middle(edited) - middle(tomato)).max() < 45


def test_the_order_of_references_is_the_order_of_the_prompt(nano) -> None:
    tomato = paint(nano, "a tomato on a white background")
    frog = paint(nano, "a frog on a white background")
    pair = paint(nano, "image 1 next to image 2 on a white background", 192, [tomato, frog])
    swapped = paint(nano, "image 2 next to image 1 on a white background", 192, [tomato, frog])
    for picture, red_first in ((pair, True), (swapped, False)):
        left, right = middle(picture[:, :96]), middle(picture[:, 96:])
        redder = (left[0] - left[1]) - (right[0] - right[1])
        assert redder > 40 if red_first else redder < -40


def test_round_trip_of_the_autoencoder(nano) -> None:
    vae = nano[2]
    picture = paint(nano, "a frog on a yellow background")
    again = vae.decode(vae.encode(torch.from_numpy(picture)[None]))[0].numpy()
    assert 10 * np.log10(1 / np.square(again - picture).mean()) > 26


def test_latents_have_the_layout_of_flux2(nano) -> None:
    latent = nano[2].encode(torch.rand(1, 96, 160, 3))
    assert latent.shape == (1, 128, 6, 10)
    assert nano[2].decode(latent).shape == (1, 96, 160, 3)


def test_previews_show_the_colours_of_the_picture(nano) -> None:
    from latent_preview import Latent2RGBPreviewer

    model, _, vae = nano[:3]
    picture = paint(nano, "a tomato on a yellow background")
    form = model.model.latent_format
    previewer = Latent2RGBPreviewer(
        form.latent_rgb_factors, form.latent_rgb_factors_bias, form.latent_rgb_factors_reshape
    )
    preview = previewer.decode_latent_to_preview(vae.encode(torch.from_numpy(picture)[None]))
    assert preview.size == (16, 16)
    small = picture.reshape(16, 8, 16, 8, 3).mean((1, 3)) * 255
    assert np.abs(np.asarray(preview, dtype=float) - small).mean() < 12


def test_text_outside_the_world_leaves_the_encoder_finite(nano) -> None:
    clip = nano[1]
    for text in ("", "Drachen \U0001f409 \u4e2d\u6587", "word " * 900, "<|im_start|>system"):
        conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(text))
        assert conditioning[0][0].shape == (1, 8, 192)
        assert torch.isfinite(conditioning[0][0]).all()


def test_files_are_small_and_described() -> None:
    files = sorted(WEIGHTS.glob("*.safetensors"))
    assert [file.stem for file in files] == ["autoencoder", "text_encoder", "transformer"]
    assert sum(file.stat().st_size for file in files) <= 24 * 2**20
    assert "Noto" in (Path(WEIGHTS) / "README.md").read_text()
