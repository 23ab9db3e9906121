"""References that weigh more or less, through Klein Prompt, in ComfyUI's own sampler and in ours."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from kleinod.nodes.acceleration.report import COMPUTED
from kleinod.nodes.acceleration.settings import choose_acceleration
from kleinod.nodes.base.values import Acceleration
from kleinod.nodes.model.nano import load_nano
from kleinod.nodes.model.nodes import KleinodPrompt
from kleinod.nodes.sampling.nodes import KleinodSampler

from tests.model.test_references import core_picture, picture, refer
from tests.model.tiny_klein import load_tiny_model

SIZE, OTHER = (128, 144), (160, 128)


@pytest.fixture(autouse=True)
def as_in_comfyui():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    _, clip, vae = load_nano()
    return {"model": load_tiny_model(), "clip": clip, "vae": vae}


def prompt(parts: dict[str, Any], *images: torch.Tensor, places: dict | None = None, **given: str) -> tuple:
    references = refer(*images, places=places, **given).args[0]
    return KleinodPrompt.execute(parts["clip"], "red cat", "blurry", references, parts["vae"]).args[:2]


def core(parts: dict[str, Any], conditionings: tuple) -> torch.Tensor:
    return core_picture(parts, *conditionings, SIZE)


def ours(parts: dict[str, Any], conditionings: tuple, steps: int = 2, **given: Any) -> torch.Tensor:
    return KleinodSampler.execute(
        parts["model"], *conditionings, parts["vae"], *SIZE, steps, 4.0, 5, "Default", 1, **given
    ).args[0]


@pytest.mark.parametrize("sample", [core, ours])
def test_weight_zero_is_the_picture_without_it(parts: dict[str, Any], sample: Any) -> None:
    first, second = picture(SIZE, 1), picture(OTHER, 2)
    without = sample(parts, prompt(parts, first))
    hidden = sample(parts, prompt(parts, first, second, weights="1, 0"))
    shown = sample(parts, prompt(parts, first, second))
    assert torch.allclose(hidden, without, atol=2e-5)
    assert (shown - without).abs().max() > 0.01, "the second image must matter"


def test_in_full_it_is_bit_for_bit_what_it_was(parts: dict[str, Any]) -> None:
    images = picture(SIZE, 1), picture(OTHER, 2)
    plain = ours(parts, prompt(parts, *images))
    written = prompt(parts, *images, weights="1, 1", steps="0-100", places={"place_1": torch.zeros(1, 8, 8)})
    assert torch.equal(ours(parts, written), plain)
    assert all("control" not in options for _, options in written[0])


def test_half_lies_between_and_two_beyond(parts: dict[str, Any]) -> None:
    images = picture(SIZE, 1), picture(OTHER, 2)
    none, half, full, double = (
        ours(parts, prompt(parts, *images, weights=f"1, {weight}")) for weight in (0, 0.5, 1, 2)
    )

    def far(one: torch.Tensor, other: torch.Tensor) -> float:
        return float((one - other).pow(2).mean().sqrt())

    assert 0 < far(half, none) < far(full, none) < far(double, none)
    assert 0 < far(half, full) < far(none, full)


@pytest.mark.parametrize("sample", [core, ours])
def test_steps_switch_it_on_and_off(parts: dict[str, Any], sample: Any) -> None:
    """Two steps: in the second one alone, then in the first alone; each is another picture."""
    images = picture(SIZE, 1), picture(OTHER, 2)
    made = [sample(parts, prompt(parts, *images, steps=f", {span}")) for span in ("0-50", "50-100", "0-100")]
    made.append(sample(parts, prompt(parts, *images, weights=", 0")))
    assert torch.equal(made[2], sample(parts, prompt(parts, *images)))
    for index, one in enumerate(made):
        assert all(not torch.allclose(one, other, atol=1e-3) for other in made[index + 1 :])


def test_a_place_over_everything_is_everywhere(parts: dict[str, Any]) -> None:
    images = picture(SIZE, 1), picture(OTHER, 2)
    plain = ours(parts, prompt(parts, *images))
    everywhere = prompt(parts, *images, places={"place_2": torch.ones(1, 7, 9)})
    assert torch.allclose(ours(parts, everywhere), plain, atol=2e-5)
    left = torch.zeros(1, 64, 64)
    left[:, :, :32] = 1
    moved = (ours(parts, prompt(parts, *images, places={"place_2": left})) - plain).abs()
    assert moved[:, :, 64:].mean() > moved[:, :, :64].mean() > 0, "what no longer sees it moves most"


@pytest.mark.parametrize("cache", ["refresh", "exact (9B-KV)"])
def test_with_the_keys_of_references_kept(parts: dict[str, Any], cache: str) -> None:
    """Queries without references' rows: a hidden image is no image then, too."""
    settings = replace(choose_acceleration("none", None), reference_cache=cache, reference_interval=2)
    first, second = picture(SIZE, 1), picture(OTHER, 2)
    without = ours(parts, prompt(parts, first), 6, acceleration_settings=settings)
    hidden = ours(parts, prompt(parts, first, second, weights=", 0"), 6, acceleration_settings=settings)
    assert torch.allclose(hidden, without, atol=5e-5)


def test_a_change_of_weights_ends_a_forecast(parts: dict[str, Any]) -> None:
    """A step at which an image comes in is computed, also where the plain run forecasts it."""
    images = picture(SIZE, 1), picture(OTHER, 2)

    def pattern(conditionings: tuple) -> str:
        made = KleinodSampler.execute(
            parts["model"], *conditionings, parts["vae"], *SIZE, 28, 4.0, 5, "Default", 1,
            acceleration_settings=Acceleration("high", forecast_error_limit=10.0),
        )  # fmt: skip
        return json.loads(made.args[3])["runs"][0]["pattern"]

    plain = pattern(prompt(parts, *images))
    step = next(step for step in range(10, 28) if plain[step] != COMPUTED)
    later = pattern(prompt(parts, *images, steps=f", {100 * step / 28}-100"))
    assert later[step] == COMPUTED, (plain, later)


def test_image_guidance_is_its_formula(parts: dict[str, Any]) -> None:
    """One step at guidance 1, by hand from ComfyUI's own sampler: the step is linear in the velocity."""
    images = picture(SIZE, 1), picture(OTHER, 2)
    shown, plain = prompt(parts, *images), prompt(parts, *images, weights="0, 0")

    def latent(conditionings: tuple, guidance: float, image_guidance: float = 1.0) -> torch.Tensor:
        return KleinodSampler.execute(
            parts["model"], *conditionings, parts["vae"], *SIZE, 1, guidance, 5, "Default", 1,
            image_guidance=image_guidance,
        ).args[1]["samples"]  # fmt: skip

    with_, without = latent(shown, 1.0), latent(plain, 1.0)
    for scale in (0.0, 0.5, 2.5):
        expected = without + scale * (with_ - without)
        assert torch.allclose(latent(shown, 1.0, scale), expected, atol=2e-4)
    guided = latent(shown, 4.0)
    assert torch.allclose(latent(shown, 4.0, 2.0), guided + (with_ - without), atol=2e-4)
    assert torch.equal(latent(shown, 4.0, 1.0), guided)


def test_image_guidance_goes_with_acceleration_and_says_its_cost(parts: dict[str, Any]) -> None:
    images = picture(SIZE, 1), picture(OTHER, 2)
    made = [
        KleinodSampler.execute(
            parts["model"], *conditionings, parts["vae"], *SIZE, steps, 4.0, 5, "Default", 1,
            acceleration=level, image_guidance=2.0,
        ).args
        for conditionings in (prompt(parts, *images),)
        for steps, level in ((12, "none"), (12, "medium"), (7, "none"))
    ]  # fmt: skip
    assert "also runs the prompt without its references" in made[0][2]
    skipped, fewer = ((made[0][0] - other[0]).square().mean() for other in made[1:])
    assert 0 < skipped < fewer
    report = KleinodSampler.execute(
        parts["model"], *KleinodPrompt.execute(parts["clip"], "cat", "").args[:2], parts["vae"], *SIZE, 1,
        4.0, 5, "Default", 1, image_guidance=2.0,
    ).args[2]  # fmt: skip
    assert "positive carries no references: it was not used" in report
