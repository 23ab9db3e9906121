"""Kleinod Fast on klein-nano, by a picture that is easily drawn as another one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from kleinod.nodes.model.choices import NANO, LoaderRequest
from kleinod.nodes.model.engine import load_set
from kleinod.nodes.sampling.engine import sample_pictures
from kleinod.nodes.sampling.request import SamplingRequest

PROMPT, SEED = "a clown on a purple background", 1619135123


@pytest.fixture(scope="module")
def nano() -> Any:
    return load_set(LoaderRequest(NANO))


def paint(nano: Any, scheduler: str, steps: int, guidance: float = 4.0) -> torch.Tensor:
    positive, negative = (
        nano.clip.encode_from_tokens_scheduled(nano.clip.tokenize(text)) for text in (PROMPT, "")
    )
    request = SamplingRequest(128, 128, steps, guidance, SEED, scheduler)
    with torch.inference_mode():
        return sample_pictures(nano.model, positive, negative, nano.vae, request).latent["samples"]


def decibels(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return 20 * math.log10(float(wanted.norm() / (got - wanted).norm()))


def test_a_picture_that_turns_easily_stays_nearer_than_by_as_many_plain_steps(nano: Any) -> None:
    """With the repair in full and four short steps at the end it was 6 dB farther at 16 steps."""
    whole = paint(nano, "Default", 28)
    plain, fast = (decibels(paint(nano, name, 16), whole) for name in ("Default", "Kleinod Fast"))
    assert fast > plain + 3, (fast, plain)


def test_without_guidance_many_steps_are_no_farther_from_the_28_plain_ones_than_as_many_plain(
    nano: Any,
) -> None:
    """With every repair in full 20 steps went past them."""
    whole = paint(nano, "Default", 28, 1.0)
    plain, fast = (decibels(paint(nano, name, 20, 1.0), whole) for name in ("Default", "Kleinod Fast"))
    assert fast > plain + 1, (fast, plain)
