"""Klein References through Klein Prompt and Klein Sampler, beside graphs of ComfyUI's own nodes."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import pytest
import torch
from comfy_extras.nodes_custom_sampler import CFGGuider, KSamplerSelect, RandomNoise, SamplerCustomAdvanced
from comfy_extras.nodes_edit_model import ReferenceLatent
from comfy_extras.nodes_flux import EmptyFlux2LatentImage, Flux2Scheduler
from kleinod.nodes.base.references import References
from kleinod.nodes.model.nano import load_nano
from kleinod.nodes.model.nodes import KleinodPrompt
from kleinod.nodes.references.engine import CACHE, latents_of
from kleinod.nodes.references.nodes import KleinodReferences
from kleinod.nodes.sampling.nodes import KleinodSampler

from nodes import CLIPTextEncode, VAEDecode, VAEEncode
from tests.model.tiny_klein import load_tiny_model, tiny_vae

FIRST, SECOND = (128, 144), (160, 128)


def picture(size: tuple[int, int], seed: int = 0, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, size[1], size[0], 3, generator=torch.Generator().manual_seed(seed))


def refer(
    *images: Any, masks: dict[str, Any] | None = None, places: dict[str, Any] | None = None, **settings: Any
) -> Any:
    """The node's outputs, called as ComfyUI calls a node that takes lists."""
    chosen = {
        "size": "auto",
        "megapixels": 1.0,
        "match_image": 1,
        "background": "white",
        "mask_use": "hide the rest",
        **settings,
    }
    sockets = {
        f"image_{n}": image if isinstance(image, list) else [image] for n, image in enumerate(images, start=1)
    }
    return KleinodReferences.execute(
        sockets, **{name: [value] for name, value in chosen.items()}, masks=masks, places=places
    )


@pytest.fixture(autouse=True)
def as_in_comfyui():
    """ComfyUI runs every node in inference mode."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """A random Klein with klein-nano's text encoder and VAE: full ones would take most of the time."""
    _, clip, vae = load_nano()
    return {"model": load_tiny_model(), "clip": clip, "vae": vae}


def core_prompt(parts: dict[str, Any], text: str, images: list[torch.Tensor]) -> list:
    """CLIP Text Encode, then VAE Encode and Reference Latent for each image."""
    (conditioning,) = CLIPTextEncode().encode(parts["clip"], text)
    for image in images:
        (latent,) = VAEEncode().encode(parts["vae"], image)
        conditioning = ReferenceLatent.execute(conditioning, latent)[0]
    return conditioning


def core_picture(
    parts: dict[str, Any], positive: list, negative: list, size: tuple[int, int]
) -> torch.Tensor:
    guider = CFGGuider.execute(parts["model"], positive, negative, 4.0)[0]
    noise, solver = RandomNoise.execute(5)[0], KSamplerSelect.execute("euler")[0]
    latent = EmptyFlux2LatentImage.execute(*size)[0]
    sigmas = Flux2Scheduler.execute(2, *size)[0]
    return VAEDecode().decode(
        parts["vae"], SamplerCustomAdvanced.execute(noise, guider, solver, sigmas, latent)[0]
    )[0]


def our_picture(parts: dict[str, Any], positive: list, negative: list, size: tuple[int, int]) -> torch.Tensor:
    return KleinodSampler.execute(
        parts["model"], positive, negative, parts["vae"], *size, 2, 4.0, 5, "Default", 1
    ).args[0]


def test_the_picture_of_a_hand_made_core_graph(parts: dict[str, Any]) -> None:
    """Bit for bit at equal sizes: two references on both conditionings, the picture as large as the first."""
    images = [picture(FIRST, 1), picture(SECOND, 2)]
    references, width, height, *_ = refer(*images).args
    positive, negative, info = KleinodPrompt.execute(
        parts["clip"], "image 1 wears image 2", "blurry", references, parts["vae"]
    ).args
    made = our_picture(parts, positive, negative, (width, height))
    expected = core_picture(
        parts,
        core_prompt(parts, "image 1 wears image 2", images),
        core_prompt(parts, "blurry", images),
        FIRST,
    )
    assert torch.equal(made, expected)
    assert made.shape == (1, FIRST[1], FIRST[0], 3)
    assert "image 1 128x144, image 2 160x128" in info
    without = KleinodPrompt.execute(parts["clip"], "image 1 wears image 2", "blurry").args[:2]
    swapped = KleinodPrompt.execute(
        parts["clip"], "image 1 wears image 2", "blurry", refer(*images[::-1]).args[0], parts["vae"]
    ).args[:2]
    for other in (without, swapped):
        assert not torch.equal(our_picture(parts, *other, FIRST), made), (
            "the references must matter, in order"
        )


@pytest.mark.parametrize("size", [(161, 130), (175, 143)])
def test_native_is_what_vae_encode_makes_of_any_size(size: tuple[int, int]) -> None:
    vae, image = tiny_vae(), picture(size, 3)
    (latent,) = VAEEncode().encode(vae, image)
    (ours,) = latents_of(vae, refer(image, size="native").args[0])
    assert torch.equal(ours, latent["samples"])


def test_core_nodes_before_and_after(parts: dict[str, Any]) -> None:
    """Reference Latent behind Klein Prompt adds image 2; our samplers take a core prompt with references."""
    images = [picture(FIRST, 1), picture(SECOND, 2)]
    ours = KleinodPrompt.execute(parts["clip"], "x", "", refer(images[0]).args[0], parts["vae"]).args[:2]
    (second,) = VAEEncode().encode(parts["vae"], images[1])
    mixed = [ReferenceLatent.execute(conditioning, second)[0] for conditioning in ours]
    core = [core_prompt(parts, text, images) for text in ("x", "")]
    expected = core_picture(parts, *core, FIRST)
    assert torch.equal(our_picture(parts, *mixed, FIRST), expected)
    assert torch.equal(our_picture(parts, *core, FIRST), expected)
    assert torch.equal(core_picture(parts, *mixed, FIRST), expected)
    assert len(ours[0][0][1]["reference_latents"]) == 1, "adding one must not change what others hold"


class Encodings:
    """Counts what a VAE really encodes."""

    def __init__(self, vae: Any, monkeypatch: pytest.MonkeyPatch, fail: bool = False) -> None:
        self.shapes: list[tuple[int, ...]] = []
        encode = vae.first_stage_model.encode

        def count(pixels: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            self.shapes.append(tuple(pixels.shape))
            if fail and len(self.shapes) == 1:
                raise comfy.model_management.OOM_EXCEPTION("out of memory, says the test")
            return encode(pixels, *args, **kwargs)

        monkeypatch.setattr(vae.first_stage_model, "encode", count)


def test_each_image_is_encoded_once(parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    vae = tiny_vae(seed=1)
    count = Encodings(vae, monkeypatch)
    first, second = picture(FIRST, 1), picture(SECOND, 2)
    both = latents_of(vae, refer(first, second).args[0])
    again = latents_of(vae, refer(second.clone(), first.clone(), second).args[0])
    assert len(count.shapes) == 2
    assert [torch.equal(a, b) for a, b in zip(again, (both[1], both[0], both[1]), strict=True)] == [True] * 3
    KleinodPrompt.execute(parts["clip"], "another prompt", "", refer(first).args[0], vae)
    assert len(count.shapes) == 2
    latents_of(vae, refer(picture(FIRST, 9)).args[0])
    assert len(count.shapes) == 3
    assert len(vae.patcher.get_attachment(CACHE)) == 3
    other = latents_of(tiny_vae(seed=2), refer(first).args[0])
    assert not torch.equal(other[0], both[0]), "another VAE has latents of its own"


def test_out_of_memory_goes_on_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = tiny_vae(seed=1)
    references = refer(picture((208, 160), 1)).args[0]
    whole = latents_of(tiny_vae(seed=1), references)[0]
    count = Encodings(vae, monkeypatch, fail=True)
    tiled = latents_of(vae, references)[0]
    assert len(count.shapes) > 1
    assert torch.allclose(tiled, whole, atol=1e-4)


def test_interrupt_is_felt_between_images() -> None:
    references = refer(picture(FIRST, batch=2)).args[0]
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        latents_of(tiny_vae(seed=1), references)


def test_a_missing_or_foreign_vae_is_a_sentence(
    parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    references = refer(picture(FIRST)).args[0]
    with pytest.raises(ValueError, match="references is connected, but vae is not: connect the vae of Klein"):
        KleinodPrompt.execute(parts["clip"], "x", "", references)
    vae = tiny_vae(seed=1)
    monkeypatch.setattr(vae, "encode", lambda pixels: torch.zeros(1, 16, 20, 16))
    with pytest.raises(ValueError, match="image 1 .128x144. into a latent of shape"):
        latents_of(vae, references)


def test_without_references_nothing_changes(parts: dict[str, Any]) -> None:
    """No VAE is touched, and no empty list of references goes to the model."""
    positive, negative, info = KleinodPrompt.execute(parts["clip"], "x", "", None, None).args
    assert "reference_latents" not in positive[0][1] and "reference_latents" not in negative[0][1]
    assert "references" not in info


def test_the_node_as_comfyui_runs_it(parts: dict[str, Any]) -> None:
    """Lists and batches in, one value out; what the page shows under the node is the sheet."""
    made = refer([picture(FIRST, 1, batch=2), picture(SECOND, 2)], picture((300, 200), 3), match_image=3)
    references, width, height, sheet, info = made.args
    assert isinstance(references, References)
    assert references.sizes == (FIRST, FIRST, SECOND, (288, 192))
    assert (width, height) == SECOND
    assert sheet.shape[0] == 1 and sheet.shape[3] == 3 and "image 4: 300x200 used as 288x192" in info
    (shown,) = made.ui.as_dict()["images"]
    assert shown["type"] == "temp"
