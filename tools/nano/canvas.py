"""The world's pictures drawn on the device that trains: what `additions.paint` draws one by one, in batches.

`tests/core/test_nano_canvas.py` holds both against each other.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from . import additions, world

CELL = world.SUBJECT + 2 * additions.MARGIN  # side of every drawing's square, plain ones with a margin
PLAIN = additions.PENGUIN_INDEX + 1  # sprites before the inked ones; indices between hold nothing
NOTHING = 2 * PLAIN  # the empty sprite


def sprite(subject: int, inked: bool) -> int:
    return subject + PLAIN * inked


class Canvas:
    """All drawings as one tensor `[NOTHING + 1, CELL, CELL, 4]` of premultiplied RGBA in 0..1."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        bank = np.zeros((NOTHING + 1, CELL, CELL, 4), np.float32)
        margin = additions.MARGIN
        for subject in (*range(len(world.NAMES)), additions.PENGUIN_INDEX):
            character = additions.character(subject)
            bank[sprite(subject, False), margin:-margin, margin:-margin] = world.render(character)
            bank[sprite(subject, True)] = additions.ink(character)
        self.bank = torch.from_numpy(bank).to(device)
        self.known = torch.tensor(
            [sprite(s, ink) for ink in (False, True) for s in (*range(len(world.NAMES)), PLAIN - 1)],
            device=device,
        )
        grounds = np.asarray(list(world.BACKGROUNDS.values()), np.float32) / 255.0
        self.grounds = torch.from_numpy(grounds).to(device)
        self.device = self.bank.device

    def paint(self, sprites: Tensor, offsets: Tensor, colours: Tensor) -> Tensor:
        """sprites `[B, 1 or 2]` left to right, offsets `[B, 1 or 2, 2]` (dx, dy), colours `[B]` ->
        `[B, 3, 128, 128 or 192]` in -1..1."""
        count = sprites.shape[1]
        width = world.SIZE if count == 1 else world.PAIR_WIDTH
        picture = self.grounds[colours][:, None, None].expand(-1, world.SIZE, width, -1)
        rows = torch.arange(world.SIZE, device=self.device)
        columns = torch.arange(width, device=self.device)
        step = width // count
        for i in range(count):
            top = (world.SIZE - CELL) // 2 + offsets[:, i, 1]
            left = step * i + (step - CELL) // 2 + offsets[:, i, 0]
            y, x = rows - top[:, None], columns - left[:, None]
            inside = ((y >= 0) & (y < CELL))[:, :, None] & ((x >= 0) & (x < CELL))[:, None]
            place = y.clamp(0, CELL - 1)[:, :, None] * CELL + x.clamp(0, CELL - 1)[:, None]
            place = place + sprites[:, i, None, None] * CELL**2
            piece = self.bank.view(-1, 4)[place] * inside[..., None]
            picture = picture * (1 - piece[..., 3:]) + piece[..., :3]
        return (2 * picture - 1).clamp(-1, 1).permute(0, 3, 1, 2)

    def paint_freely(self, count: int) -> Tensor:
        """`[count, 3, 128, 128]`: what an autoencoder should not be surprised by. Most are singles of the
        world at any pixel, some larger, smaller, beside another or on a colour that the world lacks."""
        chance = torch.rand(8, count, device=self.device)
        free = chance[0] < 0.35
        colours = torch.randint(len(self.grounds), (count,), device=self.device)
        ground = torch.where(
            (chance[1] < 0.3)[:, None], torch.rand(count, 3, device=self.device), self.grounds[colours]
        )
        picture = ground[:, :, None, None].expand(-1, -1, world.SIZE, world.SIZE)
        for layer in range(2):
            chosen = self.known[torch.randint(len(self.known), (count,), device=self.device)]
            if layer == 0:
                plain = torch.randint(len(world.NAMES), (count,), device=self.device)
                chosen = torch.where(chance[2] < 0.8, plain, chosen)
                scale = torch.where(free, torch.exp(chance[3] * 1.2 - 0.7), torch.ones_like(chance[3]))
                reach = torch.where(free, 48.0, world.JITTER + 0.49)
                shift = (reach[:, None] * (2 * torch.rand(count, 2, device=self.device) - 1)).round()
            else:
                chosen = torch.where(chance[4] < 0.25, chosen, NOTHING)
                scale = torch.where(free, torch.exp(chance[5] * 1.2 - 0.7), torch.ones_like(chance[5]))
                side = torch.where(chance[6] < 0.5, -1.0, 1.0)
                shift = 4 * (2 * torch.rand(count, 2, device=self.device) - 1)
                shift[:, 0] += 96 * side
                shift = shift.round()
            piece = self._place(chosen, scale, shift)
            picture = picture * (1 - piece[:, 3:]) + piece[:, :3]
        return (2 * picture - 1).clamp(-1, 1)

    def _place(self, sprites: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Sprites scaled and moved from the middle by whole pixels (dx, dy) -> `[B, 4, 128, 128]`."""
        margin = (world.SIZE - CELL) // 2
        canvas = functional.pad(self.bank[sprites].permute(0, 3, 1, 2), (margin,) * 4)
        # Not affine_grid: its matrix product is rounded on a GPU, and whole pixels would not stay whole.
        line = (2 * torch.arange(world.SIZE, device=self.device) + 1) / world.SIZE - 1
        across, down = ((line - 2 * shift[:, i, None] / world.SIZE) / scale[:, None] for i in (0, 1))
        side = (-1, world.SIZE, world.SIZE)
        grid = torch.stack((across[:, None].expand(side), down[:, :, None].expand(side)), dim=-1)
        return functional.grid_sample(canvas, grid, align_corners=False)
