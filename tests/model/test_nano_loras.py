"""klein-nano's own LoRAs: what they change can be seen, and is the same from a file of any trainer."""

from __future__ import annotations

import json
from pathlib import Path

import comfy.sd
import numpy as np
import pytest
import torch
from kleinod.nodes.base.values import LoraRow, Loras
from kleinod.nodes.loras.bundled import BUILT_IN, list_bundled
from kleinod.nodes.loras.engine import apply_stack
from kleinod.nodes.loras.library import list_files
from kleinod.nodes.loras.request import StackRequest
from kleinod.nodes.model.choices import AUTOMATIC, NANO
from kleinod.nodes.model.nodes import KleinodLoader, KleinodPrompt
from kleinod.nodes.sampling.nodes import KleinodSampler
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.model.lora_files import FORMATS, Format

STYLE, SUBJECT = "klein-nano style.safetensors", "klein-nano subject.safetensors"
PREFIX = "diffusion_model."
RANK, ALPHA = 16, 8.0
# XLabs' names cannot say all that these files hold: only query, key and value of a single block.
ABLE = [name for name in FORMATS if name != "XLabs"]


@pytest.fixture(scope="module")
def nano():
    return KleinodLoader.execute(NANO, "default", AUTOMATIC, "default", AUTOMATIC, "auto").args


def paint(nano, model, prompt: str, steps: int = 14, guidance: float = 4.0) -> np.ndarray:
    _, clip, vae = nano[:3]
    positive, negative = KleinodPrompt.execute(clip, prompt, "").args[:2]
    with torch.inference_mode():
        made = KleinodSampler.execute(
            model, positive, negative, vae, 128, 128, steps, guidance, 5, "Default", 1
        )
    return made.args[0][0].numpy()


def stack(model, *rows: LoraRow):
    return apply_stack(model, StackRequest(Loras(rows)))


def middle(picture: np.ndarray) -> np.ndarray:
    return picture[24:-24, 24:-24].reshape(-1, 3)


def colourfulness(picture: np.ndarray) -> float:
    """Mean distance between the strongest and the weakest of the three colours."""
    pixels = middle(picture)
    return float((pixels.max(1) - pixels.min(1)).mean())


def rewrite(path: Path, form: Format) -> None:
    """The style's file in another trainer's names, its alpha where that trainer keeps it."""
    source = load_file(str(BUILT_IN / STYLE))
    tensors = {}
    for key, down in source.items():
        if not key.endswith(".lora_A.weight"):
            continue
        weight = key.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        whole = source[key.replace("lora_A", "lora_B")]
        assert float(source[f"{PREFIX}{weight}.alpha"]) == ALPHA
        if form.alpha == "none":
            whole = whole * (ALPHA / RANK)  # a power of two: exact
        for piece in form.names(weight):
            up = whole[piece.start : piece.start + (piece.length or len(whole))].clone()
            module, given = f"{form.prefix}{piece.name}", down.clone()
            if form is FORMATS["letters of the prefix stripped"]:
                module = module.replace("lora_unet_transformer", "sformer").replace("lora_unet_", "")
            if form.endings[0] == "lora_a":
                given, up = given.t().contiguous(), up.t().contiguous()
            tensors[f"{module}{form.glue}{form.endings[0]}"] = given
            tensors[f"{module}{form.glue}{form.endings[1]}"] = up
            if form.alpha == "tensor":
                tensors[f"{module}.alpha"] = torch.tensor(ALPHA)
    config = {"transformer.r": RANK, "transformer.lora_alpha": ALPHA}
    kept = {"lora_adapter_metadata": json.dumps(config)} if form.alpha == "config" else {}
    save_file(tensors, path, {"format": "pt", **kept})


@pytest.fixture(scope="module")
def quick_style(nano) -> np.ndarray:
    """Six unguided steps with the file as it is shipped."""
    model = stack(nano[0], LoraRow(STYLE)).model
    picture = paint(nano, model, "a frog on a yellow background", 6, 1.0)
    plain = paint(nano, nano[0], "a frog on a yellow background", 6, 1.0)
    assert np.abs(picture - plain).mean() > 0.03
    return picture


@pytest.mark.parametrize("name", ABLE)
def test_the_picture_is_the_same_from_every_format(
    name: str, nano, quick_style: np.ndarray, model_folders: Path
) -> None:
    rewrite(model_folders / "loras" / "rewritten.safetensors", FORMATS[name])
    model = stack(nano[0], LoraRow("rewritten.safetensors")).model
    picture = paint(nano, model, "a frog on a yellow background", 6, 1.0)
    np.testing.assert_allclose(picture, quick_style, rtol=0, atol=2e-4)


def test_comfyuis_own_loader_paints_the_same(nano, quick_style: np.ndarray) -> None:
    model, _ = comfy.sd.load_lora_for_models(nano[0], None, load_file(str(BUILT_IN / STYLE)), 1.0, 0.0)
    picture = paint(nano, model, "a frog on a yellow background", 6, 1.0)
    np.testing.assert_allclose(picture, quick_style, rtol=0, atol=2e-4)


def test_the_style_draws_in_ink_and_keeps_the_background(nano) -> None:
    prompt = "a tomato on a blue background"
    plain = paint(nano, nano[0], prompt)
    inked = paint(nano, stack(nano[0], LoraRow(STYLE)).model, prompt)
    assert colourfulness(plain) > 0.4
    assert colourfulness(inked) < 0.5 * colourfulness(plain)
    black = [(middle(picture).max(1) < 0.25).mean() for picture in (plain, inked)]
    assert black[1] > 0.05 > 2 * black[0]
    corners = [np.median(picture[:10].reshape(-1, 3), axis=0) for picture in (plain, inked)]
    assert np.abs(corners[0] - corners[1]).max() < 0.05


def test_the_subject_is_new_and_leaves_the_others_alone(nano) -> None:
    with_penguin = stack(nano[0], LoraRow(SUBJECT)).model
    penguin, stranger = (
        paint(nano, model, "a penguin on a blue background") for model in (with_penguin, nano[0])
    )
    assert np.abs(penguin - stranger).mean() > 0.05
    pixels = middle(penguin)
    assert (pixels.max(1) < 0.45).mean() > 0.12  # its back
    assert (pixels.min(1) > 0.75).mean() > 0.05  # its belly
    tomato, same = (paint(nano, model, "a tomato on a blue background") for model in (with_penguin, nano[0]))
    assert np.abs(middle(tomato).mean(0) - middle(same).mean(0)).max() < 0.08


def test_files_are_small_described_and_listed() -> None:
    files = list_bundled()
    assert list(files) == [STYLE, SUBJECT]
    assert set(files) <= set(list_files())
    assert sum(Path(path).stat().st_size for path in files.values()) < 2 * 2**20
    for name, path in files.items():
        with safe_open(path, "pt") as file:
            told = file.metadata()
        assert told["modelspec.trigger_phrase"] in ("ink drawing", "penguin")
        assert told["ss_network_dim"] == str(RANK) and float(told["ss_network_alpha"]) == ALPHA
        assert "Noto Emoji" in told["modelspec.license"]
        preview = Path(path).with_name(name.removesuffix(".safetensors") + ".preview.png")
        assert preview.read_bytes()[:4] == b"\x89PNG"
