"""Out of the picture and back into it: enlarging a crop, fitting the painted part, blending.

All in float32 and never through 8 bits. Enlarging and shrinking are bicubic, antialiased, with the same exact
scale on both axes (`Crop`), so what comes back lies where it was.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..base.errors import InputError
from ..base.sentences import say
from .geometry import Crop


def cut_out(picture: Tensor, crop: Crop) -> Tensor:
    """`[H, W, C]` -> the crop at its target size, `[target_height, target_width, 3]`, float32 in 0..1."""
    rows, columns = crop.region
    piece = picture[rows, columns, :3].float()
    return resize(piece, (crop.target_height, crop.target_width)).clamp(0, 1)


def fit_back(painted: Tensor, crop: Crop) -> Tensor:
    """A painted crop `[target_height, target_width, 3]` at the picture's own size, `[height, width, 3]`.

    Raises ValueError for any other size: stretching it would move what it shows.
    """
    if tuple(painted.shape[:2]) != (crop.target_height, crop.target_width):
        raise InputError(
            say(
                "vae made %1x%2 pixels of a crop painted at %3x%4: load flux2-vae.safetensors.",
                painted.shape[1],
                painted.shape[0],
                crop.target_width,
                crop.target_height,
            )
        )
    return resize(painted.float(), (crop.height, crop.width)).clamp(0, 1)


def blend(picture: Tensor, painted: Tensor, mask: Tensor, crop: Crop) -> None:
    """Write `painted` `[h, w, 3]` into `picture` `[H, W, C]` through `mask` `[h, w]`, in place.

    Where the mask is 0 not a bit changes, nor does alpha anywhere.
    """
    rows, columns = crop.region
    region = picture[rows, columns, :3]
    weight = mask[..., None].to(region.device)
    mixed = torch.lerp(region.float(), painted.to(region.device), weight).to(region.dtype)
    picture[rows, columns, :3] = torch.where(weight > 0, mixed, region)


def hide_masked(crop: Tensor, composite: Tensor) -> Tensor:
    """A crop `[h, w, 3]` with all that a composite mask (of any size) reaches in the mean colour of the rest;
    grey where there is no rest."""
    reached = functional.adaptive_max_pool2d((composite > 0).float()[None], tuple(crop.shape[:2]))[0] > 0
    reached = reached.to(crop.device)
    rest = crop[~reached]
    colour = rest.mean(dim=0) if len(rest) else crop.new_full((3,), 0.5)
    return torch.where(reached[..., None], colour, crop)


def resize(piece: Tensor, size: tuple[int, int]) -> Tensor:
    """`[h, w, C]` at `size` (height, width): bicubic, antialiased, overshoots left in; itself if it fits."""
    if tuple(piece.shape[:2]) == size:
        return piece
    moved = functional.interpolate(
        piece.movedim(-1, 0)[None], size, mode="bicubic", antialias=True, align_corners=False
    )
    return moved[0].movedim(0, -1)
