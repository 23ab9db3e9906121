"""Noise levels (sigmas) of one run: BFL's schedule, its relatives, and image-to-image's part of it.

A sigma is the share of noise in `x = sigma * noise + (1 - sigma) * picture`: 1 is pure noise, 0 the finished
picture. The native schedule is `get_schedule` of black-forest-labs/flux2 (`sampling.py`), which ComfyUI's
Flux2Scheduler repeats: time falls evenly from 1 to 0 and is shifted towards the noisy end by `mu`, which
grows with the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..base.errors import InputError
from ..base.noise import fit_mu, unshift_sigma
from ..base.sentences import Sentence, say

RULES = ("native", "uniform", "karras", "exponential", "beta", "fast")

MU_AUTO = "auto"
MU_FIXED = "fixed 2.02"
MU_CAPPED = "capped above 1 MP"
MU_MODES = (MU_AUTO, MU_FIXED, MU_CAPPED)

NOISE_LEVEL = "noise-level"
SCHEDULE = "schedule"
STRENGTH_MODES = (NOISE_LEVEL, SCHEDULE)

FIXED_MU = 2.02
ONE_MEGAPIXEL_TOKENS = 4096
# Kleinod Fast's run is laid out on a native schedule this many times as fine; its last steps are kept. Two of
# them: with four the steps before, in which it is decided what the picture becomes, are a tenth wider, and on
# klein-nano it then is another one now and then.
FINENESS = 2
KEPT_TAIL = 2
# Last time of ComfyUI's sgm_uniform, before the shift: sigma_min of its table of 10,000 times.
_FIRST_TABLE_TIME = 1e-4


@dataclass(frozen=True)
class Schedule:
    """`sigmas` float32 [steps + 1], strictly falling to 0; `mu` is their shift, None where unknown."""

    sigmas: Tensor
    mu: float | None

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def start(self) -> float:
        return float(self.sigmas[0])


def compute_mu(mode: str, tokens: int, steps: int) -> float:
    """The time shift for a picture of `tokens` 16 x 16 pixel cells (references and text do not count).

    auto: BFL's empirical fit. fixed 2.02: the one value ComfyUI's named schedulers use. capped above 1 MP: as
    auto, but a larger picture keeps the value of 1 MP, which people prefer where auto turns large pictures
    blurred.
    """
    if mode == MU_FIXED:
        return FIXED_MU
    if mode == MU_CAPPED:
        tokens = min(tokens, ONE_MEGAPIXEL_TOKENS)
    elif mode != MU_AUTO:
        raise InputError(say("mu is %1, but only %2 are known.", repr(mode), ", ".join(MU_MODES)))
    return fit_mu(tokens, steps)


def shift_time(time: Tensor, mu: float) -> Tensor:
    """Evenly spaced times (1 to 0) to sigmas."""
    return math.exp(mu) / (math.exp(mu) + (1 / time - 1))


def native_sigmas(steps: int, mu: float, start: float = 1.0) -> Tensor:
    """`steps` even steps of time from the one where sigma is `start` down to 0; float32 [steps + 1]."""
    sigmas = shift_time(torch.linspace(unshift_sigma(start, mu), 0, steps + 1), mu)
    if start < 1:  # at 1 core's own rounding stays (0.99999994 for some mu), for the sake of equal bits
        sigmas[0] = start
    return sigmas


def fast_sigmas(steps: int, mu: float, start: float = 1.0) -> Tensor:
    """Kleinod Fast's: `steps` sigmas and a final 0, float32 `[steps + 1]`, falling from `start`.

    Times fall evenly, at the native spacing of FINENESS * steps for the last KEPT_TAIL steps and wider
    before.
    """
    if steps < 1:
        raise InputError(say("steps is %1, but a run needs at least 1. Set steps to 8 or more.", steps))
    first = unshift_sigma(start, mu)
    tail = min(KEPT_TAIL, steps - 1)
    edge = first * tail / (FINENESS * steps)
    body = torch.linspace(first, edge, steps - tail + 1, dtype=torch.float64)
    end = torch.linspace(edge, 0, tail + 1, dtype=torch.float64)
    sigmas = shift_time(torch.cat([body, end[1:]]), mu)
    sigmas[0], sigmas[-1] = start, 0.0
    return sigmas.float()


def respace_sigmas(rule: str, native: Tensor, mu: float) -> Tensor:
    """Spread as many sigmas differently between the first and the last non-zero one of a native schedule.

    karras (Karras et al. 2022, rho 7), exponential and beta (ppf with 0.6, 0.6) stay inside that range, as
    diffusers' FlowMatchEuler scheduler does. ComfyUI's schedulers of the same names run down to 0.00075
    instead and spend most of their steps where a flow model has nothing left to decide.
    uniform: ComfyUI's sgm_uniform with this run's own mu. fast: Kleinod Fast's, short steps at the end.
    """
    steps = len(native) - 1
    high, low = float(native[0]), float(native[-2])
    if rule == "native":
        return native
    if rule == "uniform":
        return _uniform(steps, mu, high)
    if rule == "fast":
        return fast_sigmas(steps, mu, high)
    if rule == "karras":
        ramp = torch.linspace(0, 1, steps)
        body = (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    elif rule == "exponential":
        body = torch.linspace(math.log(high), math.log(low), steps).exp()
    elif rule == "beta":
        body = low + _beta_quantiles(steps) * (high - low)
    else:
        raise ValueError(f"Sigma rule is {rule!r}, but only {', '.join(RULES)} are known.")
    return torch.cat([body, body.new_zeros(1)])


def build_schedule(
    rule: str,
    steps: int,
    tokens: int,
    mu_mode: str = MU_AUTO,
    strength: float = 1.0,
    strength_mode: str = NOISE_LEVEL,
) -> Schedule:
    """Sigmas of one run.

    strength 1 runs everything. Below that, noise-level starts at sigma = strength and still takes all
    `steps`; schedule keeps the last `count_run_steps` of the whole schedule, as ComfyUI's
    SplitSigmasDenoise does: at 1 MP and 28 steps a strength of 0.3 then starts at sigma 0.77.
    Raises ValueError where there is nothing to run: strength 0, or too little of it for one step.
    """
    if not 0 < strength <= 1:
        raise InputError(say("strength is %1, but a schedule needs a value above 0 and up to 1.", strength))
    mu = compute_mu(mu_mode, tokens, steps)
    if strength_mode == NOISE_LEVEL:
        return Schedule(respace_sigmas(rule, native_sigmas(steps, mu, strength), mu), mu)
    if strength_mode != SCHEDULE:
        raise InputError(
            say("strength_mode is %1, but only %2 are known.", repr(strength_mode), ", ".join(STRENGTH_MODES))
        )
    sigmas = respace_sigmas(rule, native_sigmas(steps, mu), mu)
    kept = count_run_steps(steps, strength, strength_mode)
    if not kept:
        raise ValueError(f"Strength {strength} of {steps} steps leaves none to run.")
    return Schedule(sigmas[-(kept + 1) :].clone(), mu)


def count_run_steps(steps: int, strength: float, strength_mode: str) -> int:
    """How many of `steps` run at a strength: 0 at strength 0, and in mode schedule where it is less than half
    a step, as ComfyUI's SplitSigmasDenoise rounds."""
    if strength_mode == SCHEDULE:
        return round(steps * strength)
    return steps if strength else 0


def explain_no_steps(steps: int, strength: float) -> Sentence:
    """Why `count_run_steps` is 0."""
    if strength == 0:
        return say("Strength 0")
    return say("Strength %1 of %2 steps is less than half a step", f"{strength:g}", steps)


def _uniform(steps: int, mu: float, high: float) -> Tensor:
    first = unshift_sigma(high, mu)
    # ComfyUI takes the sigma of its table's first time for a time; scaled, so that a low start stays above.
    last = first * float(shift_time(torch.tensor(_FIRST_TABLE_TIME), mu))
    sigmas = shift_time(torch.linspace(first, last, steps + 1), mu)
    sigmas[0], sigmas[-1] = high, 0.0
    return sigmas


def _beta_quantiles(steps: int) -> Tensor:
    from scipy.special import betaincinv  # comes with ComfyUI; needed by one rule, so not at import

    return torch.from_numpy(betaincinv(0.6, 0.6, torch.linspace(1, 0, steps).double().numpy())).float()
