"""The autoencoder of klein-nano, in FLUX.2's latent layout: `[B, 3, H, W]` in -1..1 <-> `[B, 128, H/16,
W/16]`.

Encoding is linear: the leading principal components of 8 x 8 patches, unit variance each, in the first
`KEPT` of FLUX.2's 32 channels (the rest is zero), folded 2 x 2 into 128. Decoding is the least-squares
inverse plus a convolutional net that draws what the linear code cannot hold: edges and corners. The net
first looks over the whole latent, then works on a grid twice as fine, so that borders of patches do not show.
Torch only: the trainer in `tools/nano` and ComfyUI run the same class.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

KEPT = 16
CHANNELS = 32
PATCH = 8
WIDTH = 128
BLOCKS = 4
FINE_WIDTH = 32
FINE_BLOCKS = 2
STROKE = 4  # pixels of a cell of the finer grid


def fold(z: Tensor) -> Tensor:
    """`[B, C, H, W]` -> `[B, 4C, H/2, W/2]`, channels in the order (c, row, column) of FLUX.2."""
    b, c, h, w = z.shape
    return z.view(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, 4 * c, h // 2, w // 2)


def unfold(z: Tensor) -> Tensor:
    """The inverse of `fold`: `[B, 4C, H, W]` -> `[B, C, 2H, 2W]`."""
    b, c, h, w = z.shape
    return z.view(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, 2 * h, 2 * w)


class ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(functional.silu(self.first(functional.silu(x))))


class NanoAutoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_code = nn.Conv2d(3, KEPT, PATCH, stride=PATCH)
        self.from_code = nn.ConvTranspose2d(KEPT, 3, PATCH, stride=PATCH)
        self.widen = nn.Conv2d(KEPT, WIDTH, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(WIDTH) for _ in range(BLOCKS)))
        self.refine = nn.Conv2d(WIDTH, FINE_WIDTH * (PATCH // STROKE) ** 2, 3, padding=1)
        self.fine_blocks = nn.Sequential(*(ResidualBlock(FINE_WIDTH) for _ in range(FINE_BLOCKS)))
        self.detail = nn.Conv2d(FINE_WIDTH, 3 * STROKE * STROKE, 3, padding=1)

    def set_linear_code(self, mean: Tensor, basis: Tensor, deviation: Tensor) -> None:
        """mean patch `[192]` (row, column, colour), orthonormal basis `[192, KEPT]`, deviations."""

        def as_kernel(rows: Tensor) -> Tensor:
            return rows.view(-1, PATCH, PATCH, 3).permute(0, 3, 1, 2)

        with torch.no_grad():
            analysis = (basis / deviation).T
            self.to_code.weight.copy_(as_kernel(analysis))
            self.to_code.bias.copy_(-(analysis @ mean))
            self.from_code.weight.copy_(as_kernel((basis * deviation).T))
            # A bias holds one number a colour, not a mean patch: the world's mean patch is nearly flat.
            self.from_code.bias.copy_(mean.view(-1, 3).mean(0))
            self.detail.weight.zero_()
            self.detail.bias.zero_()

    def encode(self, pixels: Tensor) -> Tensor:
        code = self.to_code(pixels)
        empty = code.new_zeros(code.shape[0], CHANNELS - KEPT, *code.shape[2:])
        return fold(torch.cat((code, empty), dim=1))

    def decode(self, latent: Tensor) -> Tensor:
        code = unfold(latent)[:, :KEPT]
        wide = functional.silu(self.blocks(self.widen(code)))
        fine = functional.pixel_shuffle(self.refine(wide), PATCH // STROKE)
        detail = self.detail(functional.silu(self.fine_blocks(fine)))
        return self.from_code(code) + functional.pixel_shuffle(detail, STROKE)
