"""The signals by which the block methods guess, early in a step, how much its result will differ from the
last one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def relative_change(now: Tensor, before: Tensor) -> Tensor:
    """Mean absolute change of each row relative to its mean absolute size, `[rows]` (TeaCache's and FBCache's
    L1).
    """
    return mean_size(now - before) / mean_size(before).clamp_min(1e-20)


def mean_size(tensor: Tensor) -> Tensor:
    """Mean absolute value of each row, `[rows]`, in float32."""
    return tensor.float().abs().flatten(1).mean(1)


def modulated_input(image: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """What the first block's attention sees: layer norm, then klein's shared modulation.

    image `[B, tokens, H]`; scale, shift `[B, 1, H]` (or `[B, 2, H]` with references at sigma 0, whose first
    row is the picture's).
    """
    normal = torch.nn.functional.layer_norm(image, image.shape[-1:], eps=1e-6)
    return normal * (1 + scale[:, :1]) + shift[:, :1]


def spectral_filter(features: Tensor, height: int, width: int, sigma: float) -> Tensor:
    """Keep of `features` `[B, height * width, H]` what is picture at this sigma, and damp what is noise.

    Natural pictures have power about 1 / f^2, the noise is flat, so along x = (1 - sigma) x0 + sigma noise
    the optimal linear estimate weighs frequency f by P / (P + noise) with P = (1 - sigma)^2 / f^2 (the idea
    of SeaCache, arXiv 2602.18993; own derivation). The weights are scaled to mean 1, so that sizes stay
    comparable between sigmas.
    """
    rows = torch.fft.fftfreq(height, device=features.device).abs()[:, None]
    columns = torch.fft.rfftfreq(width, device=features.device).abs()[None, :]
    lowest = 1.0 / max(height, width, 2)
    frequency = torch.sqrt(rows**2 + columns**2).clamp_min(lowest) / lowest
    power = (1.0 - min(sigma, 0.9999)) ** 2 / frequency**2
    weight = power / (power + sigma**2)
    weight = weight / weight.mean()
    grid = features.float().reshape(features.shape[0], height, width, -1)
    spectrum = torch.fft.rfft2(grid, dim=(1, 2)) * weight[None, :, :, None]
    return torch.fft.irfft2(spectrum, s=(height, width), dim=(1, 2)).reshape(features.shape)


@dataclass(frozen=True)
class Curve:
    """A fitted polynomial, highest power first, from a signal's change to the result's; trusted up to
    `limit`.

    Beyond it goes on in a straight line through the origin: a polynomial left alone may turn down there and
    call a great change none.
    """

    coefficients: tuple[float, ...]
    limit: float

    def at(self, change: float) -> float:
        """The change to expect; never negative."""
        inside = min(change, self.limit)
        total = 0.0
        for coefficient in self.coefficients:
            total = total * inside + coefficient
        return max(0.0, total) * max(1.0, change / self.limit)
