"""A flow whose velocity is known in closed form: noise to a mixture of Gaussians, with guidance.

Not a picture model, but a real one: the ODE of a guided flow, on which every forecast can be checked to the
last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]


def native_sigmas(steps: int, mu: float = 2.05) -> tuple[float, ...]:
    time = torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1]
    scale = torch.tensor(mu, dtype=torch.float64).exp()
    return (*(scale / (scale + 1 / time - 1)).tolist(), 0.0)


@dataclass
class MixtureFlow:
    """`velocity(x [B, D], sigma)` of `kinds` Gaussians, guided towards the first third of them."""

    dimensions: int = 12
    kinds: int = 12
    guidance: float = 4.0
    calls: int = 0
    means: Tensor = field(init=False)
    spreads: Tensor = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.means = torch.randn(self.kinds, self.dimensions, generator=generator, dtype=torch.float64) * 1.2
        self.spreads = torch.rand(self.kinds, generator=generator, dtype=torch.float64) * 0.3 + 0.15

    def noise(self, batch: int = 64) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randn(batch, self.dimensions, generator=generator, dtype=torch.float64)

    def velocity(self, x: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        everything = torch.full((self.kinds,), 1 / self.kinds, dtype=torch.float64)
        prompt = torch.zeros(self.kinds, dtype=torch.float64)
        prompt[: self.kinds // 3] = 3 / self.kinds
        negative, positive = self._mean(x, sigma, everything), self._mean(x, sigma, prompt)
        return (x - negative - self.guidance * (positive - negative)) / sigma

    def _mean(self, x: Tensor, sigma: float, weights: Tensor) -> Tensor:
        clean = 1 - sigma
        variance = clean**2 * self.spreads**2 + sigma**2
        away = x[:, None] - clean * self.means
        score = torch.log(weights + 1e-300) - 0.5 * (away**2).sum(-1) / variance
        share = torch.softmax(score - 0.5 * self.dimensions * torch.log(variance), dim=1)
        centres = self.means + (clean * self.spreads**2 / variance)[:, None] * away
        return (share[..., None] * centres).sum(1)


def integrate(velocity: Velocity, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Euler's method, as klein is sampled."""
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        x = x + (following - sigma) * velocity(x, sigma)
    return x


def decibels(got: Tensor, wanted: Tensor) -> float:
    """Median over the batch of 10 log10(signal / error)."""
    error = ((got - wanted) ** 2).mean(1)
    return float((10 * torch.log10((wanted**2).mean(1) / error.clamp_min(1e-30))).median())
