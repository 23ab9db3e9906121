"""A drawing bent to where a sampled picture shows its parts: what the decoder learns to draw from a latent.

A small transformer puts an ear at one of the world's places and the mouth at another. The whole drawing moved
as one would ask the decoder for what its latent does not say, and it would answer with a blur between places;
the drawing bent smoothly keeps every edge sharp and lies where the latent has it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

REACH, STEP = 8, 2  # pixels: from one end of the world's places to the other, and between two tries
CELL = 8  # pixels between two of the field's displacements
WINDOW = 1.5  # standard deviation in cells of what is compared
SMOOTHNESS = 1.2  # standard deviation in cells of the field's own smoothing
COST = 3e-3  # squared error of one picture value that tells two displacements apart
HOME = 1e-4  # cost of a squared pixel away from the drawing's own place
PULL, ROUNDS = 6e-4, 6  # cost of a squared pixel away from the neighbours, doubled every round


def smoothed(x: Tensor, deviation: float) -> Tensor:
    """`[B, C, H, W]` under a Gaussian, the border repeated."""
    reach = round(3 * deviation)
    line = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-line.square() / (2 * deviation**2))
    kernel = kernel / kernel.sum()
    maps = functional.pad(x.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
    maps = functional.conv2d(functional.conv2d(maps, kernel[None, None, None]), kernel[None, None, :, None])
    return maps.view_as(x)


@torch.no_grad()
def displacement(made: Tensor, drawn: Tensor) -> Tensor:
    """Pictures `[B, 3, H, W]` in -1..1 -> `[B, 2, H/8, W/8]`: the pixels (right, down) by which the parts of
    `drawn` have to move to lie where `made` shows them."""
    height, width = (side // STEP for side in made.shape[2:])
    half_made, half_drawn = (functional.avg_pool2d(x, STEP) for x in (made, drawn))
    reach = REACH // STEP
    padded = functional.pad(half_drawn, (reach,) * 4, mode="replicate")
    tries = range(-reach, reach + 1)
    shifts = torch.tensor([(STEP * x, STEP * y) for y in tries for x in tries], device=made.device).float()
    costs = []
    for y in tries:
        for x in tries:
            moved = padded[..., reach - y : reach - y + height, reach - x : reach - x + width]
            error = (half_made - moved).square().mean(1, keepdim=True)
            costs.append(functional.avg_pool2d(error, CELL // STEP))
    own = smoothed(torch.cat(costs, 1), WINDOW) + HOME * shifts.square().sum(1)[:, None, None]
    cost = own
    for turn in range(ROUNDS):
        field = torch.einsum("bshw,sc->bchw", torch.softmax(-cost / COST, 1), shifts)
        field = smoothed(field, SMOOTHNESS)
        apart = (shifts.view(1, -1, 2, 1, 1) - field[:, None]).square().sum(2)
        cost = own + PULL * 2**turn * apart
    return field


def displaced(drawn: Tensor, field: Tensor) -> Tensor:
    """Drawings `[B, 3, H, W]` in -1..1, their parts moved by `displacement`'s field."""
    height, width = drawn.shape[2:]
    pixels = functional.interpolate(field, size=(height, width), mode="bicubic", align_corners=False)
    rows = torch.arange(height, device=drawn.device)[:, None] - pixels[:, 1]
    columns = torch.arange(width, device=drawn.device) - pixels[:, 0]
    places = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), dim=-1)
    sampled = functional.grid_sample(
        drawn, places, mode="bicubic", padding_mode="border", align_corners=False
    )
    return sampled.clamp(-1, 1)
