"""Core's nodes for other models on a Klein: what has no effect says so, what cannot run is a sentence."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from comfy_extras.nodes_easycache import EasyCacheNode
from comfy_extras.nodes_hypertile import HyperTile
from comfy_extras.nodes_mahiro import Mahiro
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete, ModelSamplingFlux, ModelSamplingSD3
from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
from comfy_extras.nodes_nag import NAGuidance
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_sag import SelfAttentionGuidance
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT
from comfy_extras.nodes_tcfg import TCFG
from comfy_extras.nodes_tomesd import TomePatchModel
from kleinod.nodes.base.errors import InputError
from kleinod.nodes.base.values import Acceleration
from kleinod.nodes.model.nano import load_nano
from kleinod.nodes.model.text_engine import encode_prompt
from kleinod.nodes.sampling.engine import sample_pictures
from kleinod.nodes.sampling.patches import ForeignPatches
from kleinod.nodes.sampling.request import SamplingRequest

from tests.model.acceleration_rig import make_parts

STEPS = 12


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return make_parts()


def make(parts: dict[str, Any], model: Any, **more: Any) -> Any:
    request = SamplingRequest(width=128, height=128, steps=STEPS, guidance=4.0, seed=3)
    with torch.inference_mode():
        return sample_pictures(**{**parts, "model": model}, request=request, **more)


def test_what_klein_never_calls_is_said(parts: dict[str, Any]) -> None:
    model = PatchModelAddDownscale.execute(
        parts["model"], 3, 2.0, 0.0, 0.35, True, "bicubic", "bicubic"
    ).args[0]
    made = make(parts, model)
    assert torch.equal(made.image, make(parts, parts["model"]).image)
    assert made.report.warnings == (
        "PatchModelAddDownscale on the model has no effect: FLUX.2 [klein] has none of the places it "
        "changes.",
    )


def test_the_networks_code_is_read_once(parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """However much was put on the model."""
    network, reads = parts["model"].model.diffusion_model, []
    listed = network.modules
    monkeypatch.setattr(network, "modules", lambda: reads.append(1) or listed())
    patched = PatchModelAddDownscale.execute(
        parts["model"], 3, 2.0, 0.0, 0.35, True, "bicubic", "bicubic"
    ).args[0]
    guided = PerturbedAttentionGuidance.execute(patched, 3.0).args[0]
    patches = ForeignPatches(guided)
    patches.check()
    assert patches.warn() and len(reads) == 1


def test_guidance_by_places_that_klein_lacks_is_said(parts: dict[str, Any]) -> None:
    made = make(parts, PerturbedAttentionGuidance.execute(parts["model"], 3.0).args[0])
    assert torch.allclose(made.image, make(parts, parts["model"]).image, atol=1e-3)
    (said,) = made.report.warnings
    assert said.startswith("PerturbedAttentionGuidance on the model has no effect")


def test_guidance_by_places_that_klein_has_is_not_called_idle(parts: dict[str, Any]) -> None:
    """Skip-layer guidance leaves out blocks, of which Klein has some."""
    model = SkipLayerGuidanceDiT.execute(parts["model"], 3.0, 0.0, 1.0, "0", "0").args[0]
    made = make(parts, model)
    assert made.report.warnings == ()
    assert not torch.equal(made.image, make(parts, parts["model"]).image)


def test_guidance_by_attention_that_klein_never_shows_is_refused(parts: dict[str, Any]) -> None:
    model = SelfAttentionGuidance.execute(parts["model"], 0.5, 2.0).args[0]
    with pytest.raises(InputError, match="model carries SelfAttentionGuidance, which reads attention"):
        make(parts, model)


@pytest.mark.parametrize("node", [TCFG, Mahiro])
def test_what_acts_is_not_called_idle(parts: dict[str, Any], node: Any) -> None:
    made = make(parts, node.execute(parts["model"]).args[0])
    assert made.report.warnings == ()
    assert not torch.equal(made.image, make(parts, parts["model"]).image)


def test_patches_of_klein_s_own_places_are_not_called_idle(parts: dict[str, Any]) -> None:
    model = NAGuidance.execute(parts["model"], 5.0, 0.5, 1.5).args[0]
    assert make(parts, model).report.warnings == ()


@pytest.mark.parametrize(
    ("name", "patch"),
    [
        ("TomePatchModel", lambda model: TomePatchModel.execute(model, 0.3)[0]),
        ("HyperTile", lambda model: HyperTile.execute(model, 256, 2, 0, False)[0]),
    ],
)
def test_attention_patches_of_other_models_are_refused(parts: dict[str, Any], name: str, patch: Any) -> None:
    with pytest.raises(InputError, match=f"model carries {name}, which is made for Stable Diffusion"):
        make(parts, patch(parts["model"]))


def test_model_sampling_of_other_models(parts: dict[str, Any]) -> None:
    model = parts["model"]
    for spoilt in (
        ModelSamplingSD3().patch(model, 3.0)[0],
        ModelSamplingDiscrete().patch(model, "eps", False)[0],
    ):
        (said,) = make(parts, spoilt).report.warnings
        assert "sampled as another kind of model" in said
    shifted = make(parts, ModelSamplingFlux().patch(model, 1.15, 0.5, 512, 512)[0])
    assert torch.equal(shifted.image, make(parts, model).image)
    assert shifted.report.warnings == (
        "The shift of a ModelSampling node is not used: the scheduler and mu of Klein Sampler count.",
    )


def test_easycache_does_not_write_into_what_the_result_is_made_of() -> None:
    """Without the copy a reused step is off by its own input: 6.5 dB on klein-nano."""
    model, clip, vae = load_nano()
    parts = {
        "positive": encode_prompt(clip, "a lion on a blue background", "positive")[0],
        "negative": encode_prompt(clip, "", "negative")[0],
        "vae": vae,
    }
    cached = make(parts, EasyCacheNode.execute(model, 0.2, 0.15, 0.95, False)[0]).image
    whole = make(parts, model).image
    error = float(((cached - whole) ** 2).mean())
    assert 0 < error < 10**-1.5, f"{-10 * math.log10(error or 1):.1f} dB"


def test_a_cache_of_another_pack_gets_every_step(parts: dict[str, Any]) -> None:
    seen: dict[str, Any] = {}

    def remembering(apply_model: Any, given: dict) -> Any:
        answer = apply_model(given["input"], given["timestep"], **given["c"])
        before = seen.get("answer", answer)
        seen["answer"] = answer
        return 0.5 * (answer + before)

    model = parts["model"].clone()
    model.set_model_unet_function_wrapper(remembering)
    whole = make(parts, model)
    seen.clear()
    made = make(parts, model, acceleration=Acceleration("high"))
    assert torch.equal(made.image, whole.image)
    assert "keeps something from step to step" in made.report.text()
