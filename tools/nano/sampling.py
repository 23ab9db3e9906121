"""Latents that the transformer makes, each with the picture it means: what the decoder is polished on.

Plain Euler steps with guidance, as Klein Sampler takes them by default. A sampled latent stands at a place of
its own choice; the drawing asked for is moved to where its latent lies nearest.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from . import additions, stock, world
from .canvas import Canvas
from .train_loras import ALPHA, PREFIX, RANK
from .train_transformer import Teacher, read_transformer

STEPS, GUIDANCE, MU = 28, 4.0, 1.7678  # mu as FLUX.2 takes it for 64 tokens and 28 steps
COUNT = {"cuda": 512, "cpu": 16}


def sigmas() -> list[float]:
    times = [1 - step / STEPS for step in range(STEPS)]
    return [math.exp(MU) / (math.exp(MU) + 1 / t - 1) for t in times] + [0.0]


@dataclass(frozen=True)
class Sampled:
    """latent `[N, C, 8, 8]`, and what `Canvas.paint` needs for the picture each of them means."""

    latent: Tensor
    sprites: Tensor
    offsets: Tensor
    colours: Tensor

    def batch(self, size: int, canvas: Canvas) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(self.latent), (size,), device=canvas.device)
        return self.latent[rows], canvas.paint(self.sprites[rows], self.offsets[rows], self.colours[rows])


def merged(base: dict[str, Tensor], lora: Path) -> dict[str, Tensor]:
    file = load_file(str(lora))
    state = dict(base)
    for name in file:
        if name.endswith(".lora_A.weight"):
            module = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
            up = file[name.replace("lora_A", "lora_B")].float()
            change = (ALPHA / RANK) * up @ file[name].float()
            state[f"{module}.weight"] = base[f"{module}.weight"] + change.to(base["img_in.weight"].device)
    return state


@torch.no_grad()
def sample(teacher: Teacher, state: dict[str, Tensor], text: Tensor, guidance: float) -> Tensor:
    """text `[B, 8, 192]` -> latents of singles `[B, C, 8, 8]`."""
    side = world.SIZE // 16
    channels = state["img_in.weight"].shape[1]
    x = torch.randn(len(text), side * side, channels, device=text.device)
    both = torch.cat((text, teacher.shelf.empty.expand_as(text)))
    levels = sigmas()
    for now, then in zip(levels, levels[1:], strict=False):
        sigma = torch.full((2 * len(x),), now, device=x.device)
        asked, empty = teacher.velocity(state, torch.cat((x, x)), both, sigma, ((side, side),)).chunk(2)
        x = x + (then - now) * (empty + guidance * (asked - empty))
    return x.transpose(1, 2).unflatten(2, (side, side))


@torch.no_grad()
def registered(teacher: Teacher, latent: Tensor, sprites: Tensor, colours: Tensor) -> Tensor:
    """Offsets `[B, 1, 2]` of the drawing nearest to each latent."""
    reach = range(-world.JITTER, world.JITTER + 1)
    places = torch.tensor([(dx, dy) for dy in reach for dx in reach], device=latent.device)
    distances = []
    for place in places:
        drawn = teacher.encode(teacher.canvas.paint(sprites, place.expand(len(latent), 1, 2), colours))
        distances.append(((drawn - latent).square() * teacher.weights[:, None, None]).mean((1, 2, 3)))
    return places[torch.stack(distances).argmin(0)][:, None]


@torch.no_grad()
def sample_pool(folder: Path, canvas: Canvas, seconds: float) -> Sampled:
    """Singles of the transformer, and of its LoRAs where the folder has them, for that long."""
    base = read_transformer(folder, canvas.device)
    states = {stock.BASE: base}
    for lora in (additions.STYLE, additions.SUBJECT):
        path = folder / f"klein-nano {lora}.safetensors"
        if path.exists():
            states[lora] = merged(base, path)
    teachers = {name: Teacher(folder, canvas, name) for name in states}
    parts: list[Sampled] = []
    started, count = time.time(), COUNT[canvas.device.type]
    while not parts or time.time() - started < seconds:
        # Of four batches two are the plain model's at the usual guidance, one at another.
        name = list(states)[len(parts) // 2 % len(states)] if len(parts) % 2 else stock.BASE
        guidance = GUIDANCE if len(parts) % 4 != 2 else 1.0 + 5.0 * float(torch.rand(()))
        teacher, columns = teachers[name], teachers[name].shelf.columns["single"]
        rows = torch.randint(len(columns["colour"]), (count,), device=canvas.device)
        # The row's own sentence may be empty or leave the colour open: the picture would not be known.
        rows = rows[teacher.shelf.told["single"][rows]]
        latent = sample(teacher, states[name], teacher.shelf.text["single"][rows], guidance)
        sprites, colours = columns["sprites"][rows], columns["colour"][rows]
        offsets = registered(teacher, latent, sprites, colours)
        drawn = teacher.encode(canvas.paint(sprites, offsets, colours))
        near = (drawn - latent).square().mean((1, 2, 3)) < 0.6 * drawn.square().mean((1, 2, 3))
        parts.append(Sampled(latent[near], sprites[near], offsets[near], colours[near]))
    pool = Sampled(*(torch.cat([getattr(p, name) for p in parts]) for name in Sampled.__dataclass_fields__))
    asked = teacher.encode(canvas.paint(pool.sprites[-256:], pool.offsets[-256:], pool.colours[-256:]))
    error = (asked - pool.latent[-256:]).square().mean()
    print(f"{len(pool.latent)} latents sampled in {time.time() - started:.0f} s, {error:.3f} off", flush=True)
    return pool
