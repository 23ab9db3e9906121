"""Klein Sampler beside the graph of ComfyUI's own nodes, on the same random Klein: every bit must agree."""

from __future__ import annotations

from typing import Any

import comfy.k_diffusion.sampling as k_diffusion
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import (
    CFGGuider,
    KSamplerSelect,
    RandomNoise,
    SamplerCustomAdvanced,
    SplitSigmasDenoise,
)
from comfy_extras.nodes_flux import EmptyFlux2LatentImage, Flux2Scheduler
from kleinod.nodes.sampling.nodes import KleinodSampler
from kleinod.nodes.sampling.schedule import build_schedule

from nodes import VAEDecode, VAEEncode


def core_graph(
    parts: dict[str, Any],
    latent: dict[str, Any],
    sigmas: torch.Tensor,
    seed: int,
    guidance: float = 4.0,
    sampler: str = "euler",
) -> tuple[torch.Tensor, torch.Tensor]:
    """(pixels, latent samples) as a user's graph of core nodes makes them."""
    guider = CFGGuider.execute(parts["model"], parts["positive"], parts["negative"], guidance)[0]
    noise = RandomNoise.execute(seed)[0]
    solver = KSamplerSelect.execute(sampler)[0]
    out = SamplerCustomAdvanced.execute(noise, guider, solver, sigmas.clone(), latent)[0]
    return VAEDecode().decode(parts["vae"], out)[0], out["samples"]


def ours(parts: dict[str, Any], **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
    given = {
        **parts,
        "width": 128,
        "height": 128,
        "steps": 4,
        "guidance": 4.0,
        "seed": 7,
        "scheduler": "Default",
        "results": 1,
        **settings,
    }
    image, latent, report = KleinodSampler.execute(**given).args[:3]
    assert isinstance(report, str)
    return image, latent["samples"]


def assert_same(one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert torch.equal(one[1], other[1])
    assert torch.equal(one[0], other[0])


@pytest.mark.parametrize(
    ("width", "height", "steps", "guidance", "seed"),
    [(128, 128, 4, 4.0, 7), (192, 128, 3, 1.0, 2**32 - 1), (128, 144, 2, 2.5, 0)],
)
def test_text_to_image(
    parts: dict[str, Any], width: int, height: int, steps: int, guidance: float, seed: int
) -> None:
    latent = EmptyFlux2LatentImage.execute(width, height)[0]
    sigmas = Flux2Scheduler.execute(steps, width, height)[0]
    expected = core_graph(parts, latent, sigmas, seed, guidance)
    made = ours(parts, width=width, height=height, steps=steps, guidance=guidance, seed=seed)
    assert made[0].shape == (1, height, width, 3)
    assert_same(made, expected)


@pytest.mark.parametrize("strength", [0.3, 0.75, 1.0])
def test_image_to_image(parts: dict[str, Any], strength: float) -> None:
    image = torch.rand(1, 128, 160, 3, generator=torch.Generator().manual_seed(3))
    latent = VAEEncode().encode(parts["vae"], image)[0]
    sigmas = SplitSigmasDenoise.execute(Flux2Scheduler.execute(6, 160, 128)[0], strength)[1]
    expected = core_graph(parts, latent, sigmas, 11)
    settings = {"strength": strength, "strength_mode": "schedule", "steps": 6, "seed": 11}
    assert_same(ours(parts, image=image, **settings), expected)
    assert_same(ours(parts, latent=latent, **settings), expected)


def test_a_noise_mask_is_respected_as_core_does(parts: dict[str, Any]) -> None:
    samples = torch.randn(1, 128, 8, 8, generator=torch.Generator().manual_seed(4))
    mask = torch.zeros(1, 128, 128)
    mask[:, :, 64:] = 1
    latent = {"samples": samples, "noise_mask": mask}
    sigmas = SplitSigmasDenoise.execute(Flux2Scheduler.execute(6, 128, 128)[0], 0.5)[1]
    expected = core_graph(parts, latent, sigmas, 5)
    made = ours(parts, latent=latent, strength=0.5, strength_mode="schedule", steps=6, seed=5)
    assert_same(made, expected)
    # The noise goes in and out in float32, which costs the kept half its last bits.
    kept, changed = (made[1] - samples).abs()[..., :4], (made[1] - samples).abs()[..., 4:]
    assert kept.max() < 1e-5 < 0.1 < changed.mean()


def test_a_batch_of_images_is_one_core_run(parts: dict[str, Any]) -> None:
    images = torch.rand(2, 128, 128, 3, generator=torch.Generator().manual_seed(3))
    latent = VAEEncode().encode(parts["vae"], images)[0]
    sigmas = SplitSigmasDenoise.execute(Flux2Scheduler.execute(4, 128, 128)[0], 0.5)[1]
    expected = core_graph(parts, latent, sigmas, 7)
    assert_same(ours(parts, image=images, strength=0.5, strength_mode="schedule"), expected)


def test_batch_index_chooses_the_noise_as_core_does(parts: dict[str, Any]) -> None:
    latent = {"samples": torch.zeros(1, 128, 8, 8), "batch_index": [2]}
    expected = core_graph(parts, latent, Flux2Scheduler.execute(4, 128, 128)[0], 7)
    assert_same(ours(parts, latent=latent), expected)
    assert not torch.equal(ours(parts)[1], expected[1])


@pytest.mark.parametrize("scheduler", ["Default", "Euler a", "DPM++ SDE", "UniPC"])
def test_each_result_is_the_single_run_with_its_seed(parts: dict[str, Any], scheduler: str) -> None:
    settings = {"scheduler": scheduler, "steps": 3, "guidance": 1.0}
    together = ours(parts, results=2, seed=2**32 - 1, **settings)
    for index, seed in enumerate((2**32 - 1, 0)):
        alone = ours(parts, seed=seed, **settings)
        assert_same((together[0][index : index + 1], together[1][index : index + 1]), alone)


def test_results_of_a_batch_come_result_by_result(parts: dict[str, Any]) -> None:
    latent = {"samples": torch.randn(2, 128, 8, 8, generator=torch.Generator().manual_seed(3))}
    together = ours(parts, latent=latent, results=2, seed=1, steps=2)
    for index in range(2):
        rows = slice(2 * index, 2 * index + 2)
        alone = ours(parts, latent=latent, seed=1 + index, steps=2)
        assert_same((together[0][rows], together[1][rows]), alone)


@pytest.mark.parametrize(
    ("name", "sampler"), [("DDIM", "ddim"), ("DPM++ 2M", "dpmpp_2m"), ("UniPC", "uni_pc_bh2"), ("LMS", "lms")]
)
def test_other_solvers_are_core_s_samplers(parts: dict[str, Any], name: str, sampler: str) -> None:
    latent = EmptyFlux2LatentImage.execute(128, 128)[0]
    sigmas = Flux2Scheduler.execute(4, 128, 128)[0]
    assert_same(ours(parts, scheduler=name), core_graph(parts, latent, sigmas, 7, sampler=sampler))


@pytest.mark.parametrize("size", [(128, 128), (1024, 1024), (1040, 1024), (1360, 768), (2048, 2048)])
@pytest.mark.parametrize("steps", [1, 2, 4, 20, 28, 50])
def test_native_sigmas_are_those_of_core_s_scheduler(size: tuple[int, int], steps: int) -> None:
    width, height = size
    native = build_schedule("native", steps, width * height // 256).sigmas
    assert torch.equal(native, Flux2Scheduler.execute(steps, width, height)[0])


@pytest.mark.parametrize("steps", [2, 4, 28, 50])
def test_respaced_sigmas_are_those_of_core_s_formulas(parts: dict[str, Any], steps: int) -> None:
    """Core's formulas, given the native ends instead of ComfyUI's sigma_min."""
    native = build_schedule("native", steps, 4096).sigmas
    high, low = float(native[0]), float(native[-2])
    karras = k_diffusion.get_sigmas_karras(steps, low, high)
    assert torch.equal(build_schedule("karras", steps, 4096).sigmas, karras)
    exponential = k_diffusion.get_sigmas_exponential(steps, low, high)
    assert torch.equal(build_schedule("exponential", steps, 4096).sigmas, exponential)


@pytest.mark.parametrize("steps", [1, 2, 4, 28, 50])
def test_uniform_at_the_fixed_mu_is_sgm_uniform(parts: dict[str, Any], steps: int) -> None:
    sampling = parts["model"].get_model_object("model_sampling")
    core = comfy.samplers.calculate_sigmas(sampling, "sgm_uniform", steps)
    made = build_schedule("uniform", steps, 4096, "fixed 2.02").sigmas
    assert torch.allclose(made, core, rtol=0, atol=2e-6)
