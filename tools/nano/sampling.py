"""Latents that the transformer makes, each with the picture it means: what the decoder is polished on.

Plain Euler steps with guidance, as Klein Sampler takes them by default. A sampled latent stands at a place of
its own choice; the drawing asked for is moved to the one of the world's places where its latent is nearest.

`python -m tools.nano.sampling --minutes 10` writes them into the folder, every seed a file of its own, so
that several runs can be made side by side; `train_autoencoder --polish` reads all of them.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import additions, stock, world
from .canvas import Canvas
from .codec import ROOT
from .train_loras import ALPHA, PREFIX, RANK
from .train_transformer import Teacher, read_transformer

STEPS, GUIDANCE, MU = 28, 4.0, 1.7678  # mu as FLUX.2 takes it for 64 tokens and 28 steps
COUNT = {"cuda": 512, "cpu": 24}
# What is sampled in turn: most of it what is asked for most, some at another guidance than the usual.
PLAIN, FREE = (stock.BASE, "single", True), (stock.BASE, "single", False)
PAIR = (stock.BASE, "pair", True)
INK, PENGUIN = (additions.STYLE, "single", True), (additions.SUBJECT, "single", True)
TURNS = (PLAIN, PLAIN, PAIR, INK, PLAIN, FREE, PLAIN, PAIR, PENGUIN, PLAIN, PLAIN, PAIR)
KINDS = ("single", "pair")
FILES = "sampled"  # the beginning of their names


def sigmas(steps: int = STEPS) -> list[float]:
    times = [1 - step / steps for step in range(steps)]
    return [math.exp(MU) / (math.exp(MU) + 1 / t - 1) for t in times] + [0.0]


@dataclass(frozen=True)
class Sampled:
    """latent `[N, C, 8, 8 or 12]`, and what `Canvas.paint` needs for the picture each of them means."""

    latent: Tensor
    sprites: Tensor
    offsets: Tensor
    colours: Tensor

    def __len__(self) -> int:
        return len(self.latent)

    def rows(self, chosen: Tensor) -> Sampled:
        return Sampled(*(getattr(self, f.name)[chosen] for f in fields(self)))

    def drawn(self, canvas: Canvas, rows: Tensor) -> Tensor:
        return canvas.paint(self.sprites[rows], self.offsets[rows], self.colours[rows])

    @classmethod
    def together(cls, parts: list[Sampled]) -> Sampled:
        return cls(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)))


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
def sample(
    teacher: Teacher, state: dict[str, Tensor], text: Tensor, guidance: float, width: int, steps: int
) -> Tensor:
    """text `[B, 8, 192]` -> latents `[B, C, 8, width]`."""
    height = world.SIZE // 16
    channels = state["img_in.weight"].shape[1]
    x = torch.randn(len(text), height * width, channels, device=text.device)
    both = torch.cat((text, teacher.shelf.empty.expand_as(text)))
    levels = sigmas(steps)
    for now, then in zip(levels, levels[1:], strict=False):
        sigma = torch.full((2 * len(x),), now, device=x.device)
        # On a CPU half the time, and 50 dB from the latents of full precision.
        with torch.autocast("cpu", torch.bfloat16, enabled=x.device.type == "cpu"):
            velocity = teacher.velocity(state, torch.cat((x, x)), both, sigma, ((height, width),))
        asked, empty = velocity.float().chunk(2)
        x = x + (then - now) * (empty + guidance * (asked - empty))
    return x.transpose(1, 2).unflatten(2, (height, width))


@torch.no_grad()
def registered(teacher: Teacher, latent: Tensor, sprites: Tensor, colours: Tensor) -> Tensor:
    """Offsets `[B, subjects, 2]` of the drawings nearest to each latent, every subject on its own."""
    reach = (-world.JITTER, 0, world.JITTER)
    places = torch.tensor([(dx, dy) for dy in reach for dx in reach], device=latent.device)
    count = sprites.shape[1]
    distances = []
    for place in places:
        drawn = teacher.encode(teacher.canvas.paint(sprites, place.expand(len(latent), count, 2), colours))
        error = (drawn - latent).square() * teacher.weights[:, None, None]
        distances.append(error.unflatten(3, (count, -1)).mean((1, 2, 4)))
    return places[torch.stack(distances).argmin(0)]


@torch.no_grad()
def sample_pool(folder: Path, canvas: Canvas, seconds: float, steps: int = STEPS) -> dict[str, Sampled]:
    """Singles and pairs of the transformer, and singles of its LoRAs where the folder has them, for that
    long."""
    base = read_transformer(folder, canvas.device)
    states = {stock.BASE: base}
    for lora in (additions.STYLE, additions.SUBJECT):
        path = folder / f"klein-nano {lora}.safetensors"
        if path.exists():
            states[lora] = merged(base, path)
    teachers = {name: Teacher(folder, canvas, name) for name in states}
    turns = [turn for turn in TURNS if turn[0] in states]
    parts: dict[str, list[Sampled]] = {kind: [] for kind in KINDS}
    started, count, turn = time.time(), COUNT[canvas.device.type], 0
    while turn < len(turns) or time.time() - started < seconds:
        name, kind, usual = turns[turn % len(turns)]
        turn += 1
        guidance = GUIDANCE if usual else 1.0 + 5.0 * float(torch.rand(()))
        teacher, columns = teachers[name], teachers[name].shelf.columns[kind]
        rows = torch.randint(len(columns["colour"]), (count,), device=canvas.device)
        # The row's own sentence may be empty or leave the colour open: the picture would not be known.
        rows = rows[teacher.shelf.told[kind][rows]]
        width = (world.SIZE if kind == "single" else world.PAIR_WIDTH) // 16
        latent = sample(teacher, states[name], teacher.shelf.text[kind][rows], guidance, width, steps)
        sprites, colours = columns["sprites"][rows], columns["colour"][rows]
        offsets = registered(teacher, latent, sprites, colours)
        parts[kind].append(Sampled(latent, sprites, offsets, colours))
    pools = {kind: Sampled.together(part) for kind, part in parts.items()}
    counts = ", ".join(f"{len(pool)} of {kind}s" for kind, pool in pools.items())
    print(f"latents sampled in {time.time() - started:.0f} s: {counts}", flush=True)
    return pools


def write_pools(pools: dict[str, Sampled], path: Path) -> None:
    tensors = {
        f"{kind}.{f.name}": getattr(pool, f.name) for kind, pool in pools.items() for f in fields(pool)
    }
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, str(path))


def read_pools(folder: Path, device: torch.device | str) -> dict[str, Sampled]:
    """All that the folder has; nothing where it has none."""
    files = [load_file(str(path), str(device)) for path in sorted(folder.glob(f"{FILES}-*.safetensors"))]
    if not files:
        return {}
    return {
        kind: Sampled.together(
            [Sampled(*(file[f"{kind}.{f.name}"] for f in fields(Sampled))) for file in files]
        )
        for kind in KINDS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".runtime" / "nano")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    pools = sample_pool(options.folder, Canvas(options.device), 60 * options.minutes, options.steps)
    write_pools(pools, options.folder / f"{FILES}-{options.seed}.safetensors")


if __name__ == "__main__":
    main()
