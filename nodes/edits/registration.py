"""Where an edited picture lies over its original: shift and scale, to a fraction of a pixel.

Edit models and their VAEs move pictures by a few pixels and zoom them by a percent. The transform is found by
Gauss-Newton on the picture itself (Lucas and Kanade 1981, Baker and Matthews 2004), coarse to fine, on
high-passed luminance so that a tint does not count, with Tukey's weights so that what was edited does not
pull. It is believed only where enough of the original's detail is found again at its place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MIN_LEVEL = 48
"""Shorter side in pixels of the coarsest picture."""
FINEST_SIDE = 1024
"""Longer side at which the last fit runs: a hundredth of a pixel is reached long before full size."""
ITERATIONS = 12
TUKEY = 4.685
TILE = 24
"""Side of the tiles that are asked whether they were found again, in pixels of the finest level."""
MIN_DETAIL = 1.5 / 255
"""Standard deviation of the high-passed tile below which it shows nothing to find."""
FOUND = 0.7
"""Correlation from which a tile counts as found again."""
MAX_SHIFT = 0.08
"""Share of the longer side beyond which a shift is not believed."""
MAX_ZOOM = 0.12
MAX_DOUBT = 0.35
"""Pixels of the original that the corners may be off by (two standard deviations) at most."""
_LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Registration:
    """`x` of the original, counted in pixels from the picture's middle, is found at `scale * x + shift` in
    the edited picture once that has the original's size.

    scale, shift: (horizontal, vertical). found: share of the detailed tiles of the original that were found
    again, 0..1. detailed: share of all tiles that show detail. doubt: two standard deviations of a corner's
    place, in pixels of the original; infinite where the picture does not say.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    shift: tuple[float, float] = (0.0, 0.0)
    found: float = 1.0
    detailed: float = 1.0
    doubt: float = 0.0

    def displacement(self, width: int, height: int) -> float:
        """The farthest that any pixel of a width x height picture moved, in pixels."""
        across = abs(self.scale[0] - 1) * width / 2 + abs(self.shift[0])
        down = abs(self.scale[1] - 1) * height / 2 + abs(self.shift[1])
        return math.hypot(across, down)


IDENTITY = Registration()


def register(original: Tensor, edited: Tensor) -> Registration:
    """How `edited` lies over `original`, both `[H, W, 3]` in 0..1 of one size.

    Whether to believe it, `found` and `doubt` say; nothing is raised.
    """
    first, second = _luminance(original), _luminance(edited)
    scale = min(1.0, FINEST_SIDE / max(first.shape))
    sizes = _list_sizes(first.shape[0], first.shape[1], scale)
    place = torch.zeros(4, dtype=torch.float64)  # scale - 1 (x, y), shift (x, y) in shares of the sides
    doubt = math.inf
    for height, width in sizes:
        here = _high_pass(_shrink(first, height, width))
        there = _high_pass(_shrink(second, height, width))
        place, doubt = _fit(here, there, place)
    height, width = sizes[-1]
    found, detailed = _count_found(here, _warp(there, place))
    full_height, full_width = original.shape[:2]
    return Registration(
        scale=(1 + float(place[0]), 1 + float(place[1])),
        shift=(float(place[2]) * full_width, float(place[3]) * full_height),
        found=found,
        detailed=detailed,
        doubt=doubt * full_width / width,
    )


def move_back(edited: Tensor, place: Registration) -> tuple[Tensor, Tensor]:
    """`edited` `[H, W, 3]` laid over its original, and a bool `[H, W]`: where it has pixels to show.

    Bicubic; nothing is resampled where nothing moved by as much as a fiftieth of a pixel.
    """
    height, width = edited.shape[:2]
    if place.displacement(width, height) < 0.02:
        return edited, torch.ones((height, width), dtype=torch.bool)
    vector = torch.tensor(
        [place.scale[0] - 1, place.scale[1] - 1, place.shift[0] / width, place.shift[1] / height],
        dtype=torch.float64,
    )
    grid = _make_grid(height, width, vector)
    moved = functional.grid_sample(
        edited.movedim(-1, 0)[None].float(),
        grid[None].float(),
        mode="bicubic",
        padding_mode="border",
        align_corners=False,
    )
    half = torch.tensor([0.5 / width, 0.5 / height])
    inside = (grid.abs() <= 1 - half + 1e-6).all(dim=-1)
    return moved[0].movedim(0, -1).clamp(0, 1), inside


def _luminance(picture: Tensor) -> Tensor:
    return picture[..., :3].float() @ picture.new_tensor(_LUMINANCE, dtype=torch.float32)


def _list_sizes(height: int, width: int, scale: float) -> list[tuple[int, int]]:
    sizes = []
    while True:
        sizes.append((max(8, round(height * scale)), max(8, round(width * scale))))
        if min(sizes[-1]) / 2 < MIN_LEVEL:
            return sizes[::-1]
        scale /= 2


def _shrink(plane: Tensor, height: int, width: int) -> Tensor:
    if plane.shape == (height, width):
        return plane
    size = (height, width)
    return functional.interpolate(plane[None, None], size, mode="bilinear", antialias=True)[0, 0]


def _high_pass(plane: Tensor) -> Tensor:
    """The plane without what is wider than about eight pixels, and a little smoothed against noise."""
    return blur(plane, 0.8) - blur(plane, 4.0)


def blur(plane: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `[H, W]` or `[H, W, C]`; edges are repeated."""
    radius = max(1, math.ceil(3 * sigma))
    points = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (points / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(plane.device)
    stack = plane[None] if plane.dim() == 2 else plane.movedim(-1, 0)
    stack = stack[:, None].float()
    stack = functional.pad(stack, (radius, radius, 0, 0), mode="replicate")
    stack = functional.conv2d(stack, kernel[None, None, None, :])
    stack = functional.pad(stack, (0, 0, radius, radius), mode="replicate")
    stack = functional.conv2d(stack, kernel[None, None, :, None])[:, 0]
    return stack[0] if plane.dim() == 2 else stack.movedim(0, -1)


def _make_grid(height: int, width: int, place: Tensor) -> Tensor:
    """Where each pixel of the original lies in the edited picture: `[H, W, 2]` in -1..1 of its sides."""
    x = (torch.arange(width, dtype=torch.float64) + 0.5) / width * 2 - 1
    y = (torch.arange(height, dtype=torch.float64) + 0.5) / height * 2 - 1
    across = (1 + place[0]) * x + 2 * place[2]
    down = (1 + place[1]) * y + 2 * place[3]
    return torch.stack([across[None, :].expand(height, -1), down[:, None].expand(-1, width)], dim=-1)


def _warp(plane: Tensor, place: Tensor) -> Tensor:
    grid = _make_grid(plane.shape[0], plane.shape[1], place).to(plane)
    return functional.grid_sample(
        plane[None, None], grid[None], mode="bicubic", padding_mode="border", align_corners=False
    )[0, 0]


def _fit(here: Tensor, there: Tensor, place: Tensor) -> tuple[Tensor, float]:
    """Gauss-Newton at one size, from `place`; and two standard deviations of a corner's place in pixels."""
    height, width = here.shape
    x = ((torch.arange(width, dtype=torch.float64) + 0.5) / width - 0.5)[None, :].expand(height, -1)
    y = ((torch.arange(height, dtype=torch.float64) + 0.5) / height - 0.5)[:, None].expand(-1, width)
    edge = 3
    inner = (slice(edge, -edge), slice(edge, -edge))
    doubt = math.inf
    for _ in range(ITERATIONS):
        moved = _warp(there, place).double()
        by_x = torch.zeros_like(moved)
        by_y = torch.zeros_like(moved)
        by_x[:, 1:-1] = (moved[:, 2:] - moved[:, :-2]) / 2
        by_y[1:-1, :] = (moved[2:, :] - moved[:-2, :]) / 2
        columns = [by_x * x * width, by_y * y * height, by_x * width, by_y * height, moved]
        matrix = torch.stack([column[inner].flatten() for column in columns], dim=1)
        target = here[inner].flatten().double()
        miss = target - matrix[:, 4]
        spread = 1.4826 * float(miss.abs().median())
        if spread <= 0:
            spread = float(miss.abs().mean()) + 1e-9
        weight = (1 - (miss / (TUKEY * spread)) ** 2).clamp_min(0) ** 2
        weighted = matrix * weight[:, None]
        normal = weighted.T @ matrix
        # So little that it only keeps a picture without detail from dividing by zero.
        ridge = torch.diag(normal.diagonal() * 1e-6 + 1e-9)
        step = torch.linalg.solve(normal + ridge, weighted.T @ miss)
        # moved(p) with the derivative taken in the original's frame: scale by what it is scaled already
        place = place + step[:4] * torch.tensor([1 + place[0], 1 + place[1], 1 + place[0], 1 + place[1]])
        place = place.clamp(-0.25, 0.25)
        covariance = torch.linalg.inv(normal + ridge) * spread**2
        corner = (covariance[0, 0] / 4 + covariance[2, 2]) * width**2
        corner = corner + (covariance[1, 1] / 4 + covariance[3, 3]) * height**2
        doubt = 2 * math.sqrt(max(0.0, float(corner)))
        if float(step[:4].abs().max()) * max(width, height) < 1e-3:
            break
    return place, doubt


def _count_found(here: Tensor, moved: Tensor) -> tuple[float, float]:
    first, second = _cut_tiles(here), _cut_tiles(moved)
    first = first - first.mean(dim=1, keepdim=True)
    second = second - second.mean(dim=1, keepdim=True)
    detailed = first.std(dim=1) > MIN_DETAIL
    if not bool(detailed.any()):
        return 0.0, 0.0
    product = (first * second).sum(dim=1)
    likeness = product / (first.norm(dim=1) * second.norm(dim=1)).clamp_min(1e-9)
    return float((likeness[detailed] > FOUND).float().mean()), float(detailed.float().mean())


def _cut_tiles(plane: Tensor) -> Tensor:
    tile = min(TILE, *plane.shape)
    rows, columns = plane.shape[0] // tile, plane.shape[1] // tile
    tiles = plane[: rows * tile, : columns * tile].reshape(rows, tile, columns, tile)
    return tiles.transpose(1, 2).reshape(rows * columns, tile * tile)
