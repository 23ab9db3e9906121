"""Core's nodes around Klein Sampler and Klein Inpaint: the same as core's own sampler, or said."""

from __future__ import annotations

from typing import Any

import comfy_extras.nodes_post_processing  # noqa: F401 (nodes_latent needs it first)
import pytest
import torch
from comfy_extras.nodes_easycache import EasyCacheNode
from comfy_extras.nodes_hypertile import HyperTile
from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
from kleinod.nodes.base.errors import InputError
from kleinod.nodes.edits.painting import inpaint
from kleinod.nodes.edits.request import InpaintRequest
from kleinod.nodes.regions.painter import PaintInputs
from kleinod.nodes.sampling.nodes import KleinodSampler

import nodes
from tests.model.acceleration_rig import with_short_text
from tests.model.test_sampler_core_graph import ours
from tests.model.tiny_klein import load_tiny_model, random_conditioning, tiny_vae


@pytest.fixture(scope="module")
def short() -> dict[str, Any]:
    return {
        "model": with_short_text(load_tiny_model(double=1, single=2)),
        "positive": random_conditioning(1),
        "negative": random_conditioning(2),
        "vae": tiny_vae(),
    }


def report_of(parts: dict[str, Any], **settings: Any) -> str:
    given = {"width": 256, "height": 128, "steps": 2, "guidance": 4.0, "seed": 7, "scheduler": "Default"}
    return KleinodSampler.execute(**{**parts, **given, "results": 1, **settings}).args[2]


def in_area(x: int, y: int, width: int, height: int) -> list:
    area = nodes.ConditioningSetArea().append(random_conditioning(3), width, height, x, y, 1.0)[0]
    return nodes.ConditioningCombine().combine(area, random_conditioning(1))[0]


def test_an_area_in_pixels_is_said_to_lie_elsewhere(short: dict[str, Any]) -> None:
    said = report_of({**short, "positive": in_area(64, 0, 64, 64)})
    assert "An area in positive covers 128x128 pixels at 128,0" in said
    assert "An area" not in report_of(short)
    halves = {**short, "positive": in_area(64, 0, 32, 64)}
    percent = nodes.ConditioningSetAreaPercentage().append(random_conditioning(3), 0.25, 1.0, 0.5, 0.0, 1.0)[
        0
    ]
    same = {**short, "positive": nodes.ConditioningCombine().combine(percent, random_conditioning(1))[0]}
    size = {"width": 256, "steps": 2}
    assert torch.equal(ours(halves, **size)[1], ours(same, **size)[1])


def test_an_area_outside_of_the_picture_is_refused(short: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="An area in positive begins at 256,0 .* picture of 256x128"):
        report_of({**short, "positive": in_area(128, 0, 64, 128)})
    with pytest.raises(InputError, match="An area in negative begins at 0,128"):
        report_of({**short, "negative": in_area(0, 64, 64, 64)})
        report_of({**short, "negative": in_area(0, 64, 64, 64)}, guidance=1.0)  # the prompt gets its twin


def paint(short: dict[str, Any], model: Any, steps: int = 2, strength: float = 1.0) -> Any:
    image = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(1, 128, 128)
    mask[:, 32:96, 32:96] = 1
    inputs = PaintInputs(model, None, short["vae"], short["positive"], short["negative"])
    request = InpaintRequest(prompt="", steps=steps, guidance=1.0, seed=3, strength=strength)
    with torch.inference_mode():
        return inpaint(image, mask, inputs, request)


def test_klein_inpaint_lends_x_to_easycache(short: dict[str, Any]) -> None:
    """A threshold that reuses all it may: without the copy each reused step is off by its own input."""
    seen: list[torch.Tensor] = []

    def keep(apply: Any, given: dict[str, Any]) -> torch.Tensor:
        before = given["input"].clone()
        out = apply(given["input"], given["timestep"], **given["c"])
        seen.append((given["input"] - before).abs().max())
        return out

    model = short["model"].clone()
    model.set_model_unet_function_wrapper(keep)
    paint(short, EasyCacheNode.execute(model, 10.0, 0.0, 1.0, False)[0], steps=6)
    assert len(seen) == 6 and max(seen) == 0


def test_klein_inpaint_says_what_has_no_effect_on_its_model(short: dict[str, Any]) -> None:
    idle = PatchModelAddDownscale.execute(short["model"], 3, 2.0, 0.0, 0.35, True, "bicubic", "bicubic").args[
        0
    ]
    assert "PatchModelAddDownscale on the model has no effect" in paint(short, idle).info
    with pytest.raises(InputError, match="model carries HyperTile"):
        paint(short, HyperTile.execute(short["model"], 256, 2, 0, False)[0])
