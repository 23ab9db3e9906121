"""Taking back the tint: Klein and its VAE shift colours a little, which shows wherever a painted part ends.

Measured on the ring just outside the composite mask, as far as both show the same there:
the median of the difference tells the shift, and, where the ring has contrast, the spread tells the gain.
"""

from __future__ import annotations

import torch
from torch import Tensor

MIN_PIXELS = 16
"""A ring of fewer pixels tells nothing."""
MAX_SHIFT = 0.1
MAX_GAIN = 1.15
MIN_SPREAD = 0.04
"""Below this the ring is flat, and its spread is noise."""


def match_colours(painted: Tensor, original: Tensor, ring: Tensor, amount: float = 1.0) -> Tensor:
    """`painted` moved towards `original`, both `[h, w, 3]` in 0..1, as measured on `ring` (bool `[h, w]`).

    amount: 0 returns `painted` itself, 1 the whole correction. Nothing is moved by more than 0.1 or stretched
    by more than 15%, so that a ring that was repainted cannot spoil the rest.
    """
    if amount <= 0 or int(ring.sum()) < MIN_PIXELS:
        return painted
    ours, theirs = painted[ring], original[ring].to(painted)
    middle = ours.median(dim=0).values
    shift = (theirs - ours).median(dim=0).values.clamp(-MAX_SHIFT, MAX_SHIFT)
    same = (theirs - ours - shift).abs().amax(dim=-1) < MAX_SHIFT
    if int(same.sum()) < MIN_PIXELS:
        return painted
    spread, wanted = ours[same].std(dim=0), theirs[same].std(dim=0)
    textured = (spread > MIN_SPREAD) & (wanted > MIN_SPREAD)
    gain = torch.where(textured, (wanted / spread.clamp_min(1e-6)).clamp(1 / MAX_GAIN, MAX_GAIN), 1.0)
    matched = (painted - middle) * gain + middle + shift
    return torch.lerp(painted, matched, amount).clamp(0, 1)
