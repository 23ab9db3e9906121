"""Colour distance as eyes see it, and the global tint an edit model adds, fitted on what it left alone."""

from __future__ import annotations

import torch
from torch import Tensor

SAMPLES = 60_000
ITERATIONS = 12
TUKEY = 4.685
MIN_SPREAD = 0.004
"""Colour difference (of 1) that counts as noise however well the rest agrees: one step of 8 bits."""
MIN_SAMPLES = 200
MAX_MOVE = 0.25
"""A fit that moves any colour of the picture by more than this share of the range is no tint."""
MIN_MOVE = 0.5 / 255
"""Half a step of 8 bits: less is none."""
_WHITE = (0.95047, 1.0, 1.08883)
_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)


def to_lab(picture: Tensor) -> Tensor:
    """CIE L*a*b* (D65) `[..., 3]` of sRGB in 0..1; IEC 61966-2-1 and CIE 15."""
    colour = picture.float()
    linear = torch.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055).clamp_min(0) ** 2.4)
    xyz = linear @ linear.new_tensor(_TO_XYZ).T / linear.new_tensor(_WHITE)
    cube = torch.where(xyz > (6 / 29) ** 3, xyz.clamp_min(1e-9) ** (1 / 3), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = cube.unbind(dim=-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


def delta_e(first: Tensor, second: Tensor) -> Tensor:
    """CIE 1976 colour difference of two sRGB pictures `[..., 3]`: about 1 is the least an eye sees."""
    return (to_lab(first) - to_lab(second)).norm(dim=-1)


def fit_tint(edited: Tensor, original: Tensor, usable: Tensor) -> Tensor | None:
    """The map `[4, 3]` (three weights and an offset for each channel) from the edit's colours to the
    original's, or None where nothing shows one.

    Both `[H, W, 3]` in 0..1, best a little blurred, so that neither noise nor a last hundredth of a pixel
    counts. usable: bool `[H, W]`. Iterated least squares with Tukey's weights: pixels that were edited drop
    out by themselves as long as they are fewer than half. Where the picture has few colours the map stays
    near a mere offset.
    """
    rows = usable.flatten().nonzero()[:, 0]
    if len(rows) < MIN_SAMPLES:
        return None
    rows = rows[:: max(1, len(rows) // SAMPLES)]
    before = edited.reshape(-1, 3)[rows].double()
    after = original.reshape(-1, 3)[rows].double()
    matrix = torch.cat([before, torch.ones(len(before), 1, dtype=torch.float64)], dim=1)
    same = torch.cat([torch.eye(3), torch.zeros(1, 3)]).double()
    # Towards "the same colours, shifted": worth a thousandth of the samples at full contrast.
    ridge = torch.diag(torch.tensor([1.0, 1.0, 1.0, 1e-6], dtype=torch.float64)) * len(matrix) * 1e-4
    tint = same.clone()
    tint[3] = (after - before).median(dim=0).values
    for _ in range(ITERATIONS):
        miss = (after - matrix @ tint).norm(dim=1)
        spread = max(float(miss.median()) * 1.4826 / 1.6, MIN_SPREAD)
        weight = (1 - (miss / (TUKEY * spread)) ** 2).clamp_min(0) ** 2
        weighted = matrix * weight[:, None]
        tint = torch.linalg.solve(weighted.T @ matrix + ridge, weighted.T @ after + ridge @ same)
    moved = float((matrix @ tint - before).abs().amax())
    return tint.float() if MIN_MOVE <= moved <= MAX_MOVE else None


def apply_tint(picture: Tensor, tint: Tensor | None) -> Tensor:
    """`picture` `[..., 3]` through the map of `fit_tint`, in 0..1; itself where there is none."""
    if tint is None:
        return picture
    return (picture.float() @ tint[:3].to(picture.device) + tint[3].to(picture.device)).clamp(0, 1)


def undo_tint(picture: Tensor, tint: Tensor | None) -> Tensor:
    """`picture` as the edit would show it: the other way through the map, in 0..1. What the edit cut off at
    black or white is cut off here, too, so that both can be compared.
    """
    if tint is None:
        return picture
    weights = torch.linalg.inv(tint[:3].double()).to(picture)
    return ((picture.float() - tint[3].to(picture.device)) @ weights).clamp(0, 1)
