"""Every scheduler name on a flow whose data are known exactly, through the engine and ComfyUI's samplers.

Each of the latent's numbers is one draw from a mixture of two normal distributions. For such data the best
prediction is a formula, which stands in for the network; so whatever misses the data is the solver's fault.
"""

from __future__ import annotations

import math
from typing import Any

import comfy.samplers
import pytest
import torch
from kleinod.nodes.base.schedulers import SCHEDULER_NAMES, SCHEDULERS
from kleinod.nodes.sampling.engine import Guide, build_sampler, sample_results
from kleinod.nodes.sampling.progress import RunProgress
from kleinod.nodes.sampling.request import SamplingRequest
from kleinod.nodes.sampling.schedule import build_schedule
from kleinod.nodes.sampling.timing import Clock

from tests.model.tiny_klein import load_tiny_model, random_conditioning

# torchsde rounds sigmas in its own way and says so in SDE samplers; core's graphs print the same.
pytestmark = pytest.mark.filterwarnings("ignore:Should have:UserWarning")

MEANS, WEIGHTS, SPREAD = (-0.9, 0.6), (0.4, 0.6), 0.15
TOKENS = 4096
PAIRS = {(SCHEDULERS[name].solver, SCHEDULERS[name].rule): name for name in reversed(SCHEDULER_NAMES)}


def predict_data(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """E[data | x] where x = sigma * noise + (1 - sigma) * data."""
    sigma = sigma.view(-1, 1, 1, 1)
    share = 1 - sigma
    variance = (share * SPREAD) ** 2 + sigma**2
    away = [x - share * mean for mean in MEANS]
    odds = torch.stack([math.log(w) - d**2 / (2 * variance) for w, d in zip(WEIGHTS, away, strict=True)])
    guesses = [m + share * SPREAD**2 / variance * d for m, d in zip(MEANS, away, strict=True)]
    return sum(p * guess for p, guess in zip(odds.softmax(0), guesses, strict=True))


class Flow:
    """The tiny Klein with its network replaced by the formula; counts the calls and the steps reported."""

    def __init__(self) -> None:
        self.model = load_tiny_model(double=1, single=0).clone()
        self.calls = 0
        self.model.set_model_unet_function_wrapper(self._answer)

    def _answer(self, apply: Any, args: dict[str, Any]) -> torch.Tensor:
        self.calls += 1
        return predict_data(args["input"], args["timestep"])

    def run(
        self, sampler: Any, sigmas: torch.Tensor, latent: torch.Tensor, results: int = 1
    ) -> list[torch.Tensor]:
        self.calls = 0
        guide = Guide(self.model, random_conditioning(1), random_conditioning(2), 1.0)
        request = SamplingRequest(seed=3, results=results)
        progress = RunProgress(self.model, (len(sigmas) - 1) * results, results)
        return list(sample_results(guide, sampler, sigmas, {"samples": latent}, request, Clock(), progress))


@pytest.fixture(scope="module")
def flow() -> Flow:
    return Flow()


@pytest.fixture(scope="module")
def data() -> torch.Tensor:
    """Sorted draws from the mixture, as many as a latent has numbers."""
    generator = torch.Generator().manual_seed(5)
    count = 128 * 8 * 8
    which = torch.rand(count, generator=generator) < WEIGHTS[0]
    centre = torch.where(which, *(torch.tensor(mean) for mean in MEANS))
    return (centre + SPREAD * torch.randn(count, generator=generator)).sort().values


def distance(result: torch.Tensor, data: torch.Tensor) -> float:
    """Wasserstein-1 between what came out and the data (whose standard deviation is 0.75)."""
    return float((result.flatten().sort().values - data).abs().mean())


EMPTY = torch.zeros(1, 128, 8, 8)


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_every_name_reaches_the_data(flow: Flow, data: torch.Tensor, name: str) -> None:
    entry = SCHEDULERS[name]
    sigmas = build_schedule(entry.rule, 28, TOKENS).sigmas
    (result,) = flow.run(build_sampler(entry.solver), sigmas, EMPTY)
    assert distance(result, data) < (0.15 if entry.solver.sampler == "lcm" else 0.1)
    assert result.abs().max() < 2
    assert flow.calls == entry.solver.model_calls(28)


@pytest.mark.parametrize("name", PAIRS.values())
@pytest.mark.parametrize("steps", [1, 3, 50])
def test_any_number_of_steps_stays_within_the_data(flow: Flow, name: str, steps: int) -> None:
    entry = SCHEDULERS[name]
    solver = entry.solver_for(steps)
    (result,) = flow.run(build_sampler(solver), build_schedule(entry.rule, steps, TOKENS).sigmas, EMPTY)
    assert torch.isfinite(result).all()
    assert result.abs().max() < 2.2
    assert flow.calls == solver.model_calls(steps)


@pytest.mark.parametrize("name", PAIRS.values())
@pytest.mark.parametrize("mode", ["noise-level", "schedule"])
def test_a_start_from_a_picture_stays_within_the_data(
    flow: Flow, data: torch.Tensor, name: str, mode: str
) -> None:
    entry = SCHEDULERS[name]
    schedule = build_schedule(entry.rule, 10, TOKENS, strength=0.4, strength_mode=mode)
    start = data[torch.randperm(len(data), generator=torch.Generator().manual_seed(1))].view_as(EMPTY)
    (result,) = flow.run(build_sampler(entry.solver_for(schedule.steps)), schedule.sigmas, start)
    assert result.abs().max() < 2.2
    assert distance(result, data) < 0.45  # a picture lost to its mean would be at 0.72


@pytest.mark.parametrize("name", PAIRS.values())
def test_no_solver_carries_anything_into_the_next_result(flow: Flow, name: str) -> None:
    """UniPC writes into its sigmas; others could keep a history."""
    entry = SCHEDULERS[name]
    sigmas = build_schedule(entry.rule, 4, TOKENS).sigmas
    before = sigmas.clone()
    sampler = build_sampler(entry.solver)
    both = flow.run(sampler, sigmas, EMPTY, results=2)
    assert torch.equal(sigmas, before)
    again = flow.run(sampler, sigmas, EMPTY, results=2)
    assert torch.equal(both[0], again[0]) and torch.equal(both[1], again[1])
    assert not torch.equal(both[0], both[1])


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpmpp_3m_sde"])
def test_the_measure_sees_a_pair_that_diverges(flow: Flow, data: torch.Tensor, sampler: str) -> None:
    """Why `normal` is on no list: the test above must fail with it."""
    sampling = flow.model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", 28)
    (result,) = flow.run(comfy.samplers.sampler_object(sampler), sigmas, EMPTY)
    assert distance(result, data) > 0.1 or result.abs().max() > 2
