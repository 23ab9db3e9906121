"""FLUX.2's own schedule of noise levels, as numbers: `get_schedule` of black-forest-labs/flux2."""

from __future__ import annotations

import math


def fit_mu(tokens: int, steps: int) -> float:
    """BFL's empirical shift of time for a picture of `tokens` 16 x 16 pixel cells."""
    many_steps = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return many_steps
    few_steps = 8.73809524e-05 * tokens + 1.89833333
    # Same order of operations as BFL's, so that the numbers agree to the last bit.
    slope = (many_steps - few_steps) / 190.0
    return slope * steps + (many_steps - 200.0 * slope)


def unshift_sigma(sigma: float, mu: float) -> float:
    """The time, 1 to 0, in which FLUX.2's own steps are even: the one whose sigma is `sigma`.

    1 for a sigma above 1, which a user's own list may have.
    """
    return 1 / (1 + math.exp(mu) * max(0.0, 1 / sigma - 1))


def list_native_sigmas(steps: int, tokens: int) -> tuple[float, ...]:
    """`steps + 1` sigmas from 1 to 0: time falls evenly and is shifted towards the noisy end."""
    shift = math.exp(fit_mu(tokens, steps))
    times = [1 - i / steps for i in range(steps)]
    return (*(shift / (shift + (1 / time - 1)) for time in times), 0.0)
