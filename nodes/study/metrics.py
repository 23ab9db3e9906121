"""How far one picture is from another: PSNR, SSIM, and the relative error of a latent.

All take two batches and give one number a picture, so that medians and worst cases can be told.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from ..base.errors import InputError
from ..base.sentences import say

# An identical picture has no finite PSNR; this is where tables stop counting.
MAX_DECIBELS = 100.0
# The window of Wang et al. 2004: Gaussian, 11 pixels wide, sigma 1.5.
WINDOW, SPREAD = 11, 1.5
_BRIGHTNESS = (0.299, 0.587, 0.114)


def psnr(got: Tensor, wanted: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB `[B]` of IMAGEs `[B, H, W, 3]` in 0..1; higher is closer."""
    _require_alike(got, wanted)
    error = ((got.double() - wanted.double()) ** 2).flatten(1).mean(1)
    return (-10 * torch.log10(error.clamp_min(10 ** (-MAX_DECIBELS / 10)))).float()


def ssim(got: Tensor, wanted: Tensor) -> Tensor:
    """Structural similarity `[B]` of the brightness of IMAGEs `[B, H, W, 3]` in 0..1; 1 is alike.

    Wang et al. 2004. Pictures smaller than the window are compared as a whole.
    """
    _require_alike(got, wanted)
    a, b = _brightness(got), _brightness(wanted)
    height, width = (_gauss(min(WINDOW, side), a) for side in a.shape[-2:])

    def mean(x: Tensor) -> Tensor:
        return conv2d(conv2d(x, height[None, None, :, None]), width[None, None, None, :])

    mean_a, mean_b = mean(a), mean(b)
    spread_a, spread_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    together = mean(a * b) - mean_a * mean_b
    light, contrast = 0.01**2, 0.03**2
    likeness = (2 * mean_a * mean_b + light) / (mean_a**2 + mean_b**2 + light)
    likeness = likeness * (2 * together + contrast) / (spread_a + spread_b + contrast)
    return likeness.flatten(1).mean(1).float()


def latent_error(got: Tensor, wanted: Tensor) -> Tensor:
    """Relative L2 error `[B]` of latents `[B, C, H, W]`."""
    _require_alike(got, wanted)
    miss, size = (got - wanted).float().flatten(1).norm(dim=1), wanted.float().flatten(1).norm(dim=1)
    return miss / size.clamp_min(1e-20)


def _brightness(image: Tensor) -> Tensor:
    weights = torch.tensor(_BRIGHTNESS, dtype=torch.float64, device=image.device)
    return (image[..., :3].double() * weights).sum(-1)[:, None]


def _gauss(size: int, like: Tensor) -> Tensor:
    at = torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2
    weights = torch.exp(-(at**2) / (2 * SPREAD**2))
    return weights / weights.sum()


def _require_alike(got: Tensor, wanted: Tensor) -> None:
    if got.shape != wanted.shape:
        raise InputError(
            say(
                "Pictures of different sizes cannot be compared: %1 and "
                "%2. Make both with the same width and height.",
                tuple(got.shape),
                tuple(wanted.shape),
            )
        )
