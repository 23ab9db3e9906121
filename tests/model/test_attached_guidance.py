"""Core's Normalized Attention Guidance and Adaptive Projected Guidance under Klein Sampler and its caches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comfy_extras.nodes_apg import APG
from comfy_extras.nodes_nag import NAGuidance
from kleinod.nodes.base.values import Acceleration
from kleinod.nodes.sampling.engine import sample_pictures
from kleinod.nodes.sampling.request import SamplingRequest

from tests.model.acceleration_rig import make_parts
from tests.model.tiny_klein import random_conditioning

STEPS = 16


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return make_parts()


def make(parts: dict[str, Any], guidance: float, acceleration: Acceleration | None = None) -> Any:
    request = SamplingRequest(width=128, height=128, steps=STEPS, guidance=guidance, seed=3)
    with torch.inference_mode():
        return sample_pictures(**parts, request=request, acceleration=acceleration)


def nag(parts: dict[str, Any]) -> dict[str, Any]:
    return {**parts, "model": NAGuidance.execute(parts["model"], 5.0, 0.5, 1.5).args[0]}


def apg(parts: dict[str, Any], momentum: float) -> dict[str, Any]:
    return {**parts, "model": APG.execute(parts["model"], 1.0, 5.0, momentum).args[0]}


def test_the_report_says_that_the_negative_prompt_counts(parts: dict[str, Any]) -> None:
    guided = nag(parts)
    made = make(guided, 1.0)
    text = made.report.text()
    assert "is not used" not in text and "has the negative prompt run in every step" in text
    assert "each with the prompt and with the negative prompt" in text
    other = make({**guided, "negative": random_conditioning(9)}, 1.0)
    assert not torch.equal(made.image, other.image)
    assert "the negative prompt is not used" in make(parts, 1.0).report.text()


def test_spared_guidance_does_not_switch_nag_off(parts: dict[str, Any]) -> None:
    settings = Acceleration("none", guidance_interval=2)
    spared = make(nag(parts), 4.0, settings)
    assert torch.equal(spared.latent["samples"], make(nag(parts), 4.0).latent["samples"])
    assert "NAGuidance compares prompt and negative prompt" in spared.report.text()
    assert not torch.equal(make(parts, 4.0, settings).latent["samples"], make(parts, 4.0).latent["samples"])


def test_a_running_average_gets_every_step(parts: dict[str, Any]) -> None:
    made = make(apg(parts, -0.5), 4.0, Acceleration("high"))
    assert torch.equal(made.latent["samples"], make(apg(parts, -0.5), 4.0).latent["samples"])
    assert "APG keeps something from step to step" in made.report.text()


def test_without_momentum_it_is_accelerated(parts: dict[str, Any]) -> None:
    made = make(apg(parts, 0.0), 4.0, Acceleration("high"))
    assert "keeps something" not in made.report.text()
    assert not torch.equal(made.latent["samples"], make(apg(parts, 0.0), 4.0).latent["samples"])
