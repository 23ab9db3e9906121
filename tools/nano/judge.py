"""Who scores klein-nano: a small classifier trained on the drawings alone, and a measured background
colour.

`python -m tools.nano.judge` trains it (a minute on one core) and writes `judge.safetensors` beside this
file. It never sees a generated picture: only drawings on random flat colours, moved, scaled, blurred,
dimmed and noised.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from . import world

WEIGHTS = Path(__file__).with_name("judge.safetensors")
VIEW = 96  # pixels of a picture the classifier looks at, around a subject's place
SIDE = 48  # what it is scaled to
FRAME = 10  # pixels from the upper and lower edge in which only background lies
FARTHEST = 45.0  # a median colour farther than this from every background (RGB distance) is none of them


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 24, 3, stride=2, padding=1),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.Conv2d(48, 96, 3, stride=2, padding=1),
            nn.BatchNorm2d(96),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(96 * 36, len(world.NAMES)),
        )

    def forward(self, views: Tensor) -> Tensor:
        """`[B, 3, 48, 48]` in 0..1 -> logits `[B, subjects]`."""
        return self.layers(views - 0.5)


def _practice_view(subject: int, rng: np.random.Generator) -> np.ndarray:
    colour = rng.integers(30, 256, 3).astype(np.float32) / 255
    side = int(world.SUBJECT * rng.uniform(0.88, 1.1))
    rgba = np.asarray(
        Image.fromarray((world.drawing(subject) * 255).astype(np.uint8)).resize((side, side)), np.float32
    )
    rgba = rgba / 255
    canvas = np.empty((VIEW + 24, VIEW + 24, 3), np.float32)
    canvas[:] = colour
    left, top = ((VIEW + 24 - side) // 2 + rng.integers(-7, 8, 2)).tolist()
    region = canvas[top : top + side, left : left + side]
    region *= 1 - rgba[..., 3:]
    region += rgba[..., :3]
    view = Image.fromarray((canvas[12:-12, 12:-12].clip(0, 1) * 255).astype(np.uint8))
    small = int(rng.choice([SIDE, SIDE, 32, 24]))
    view = view.resize((small, small), Image.BILINEAR).resize((SIDE, SIDE), Image.BILINEAR)
    pixels = np.asarray(view, np.float32) / 255 * rng.uniform(0.8, 1.15)
    return (pixels + rng.normal(0, rng.choice([0, 0.02, 0.06]), pixels.shape)).clip(0, 1).astype(np.float32)


def train(steps: int = 700, seed: int = 7) -> None:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    started = time.time()
    for step in range(steps):
        subjects = rng.integers(len(world.NAMES), size=64)
        views = torch.from_numpy(np.stack([_practice_view(int(s), rng) for s in subjects])).permute(
            0, 3, 1, 2
        )
        loss = functional.cross_entropy(model(views), torch.from_numpy(subjects), label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step} {time.time() - started:.0f} s loss {loss.item():.3f}", flush=True)
    model.eval()
    subjects = rng.integers(len(world.NAMES), size=2000)
    views = torch.from_numpy(np.stack([_practice_view(int(s), rng) for s in subjects])).permute(0, 3, 1, 2)
    with torch.no_grad():
        right = (model(views).argmax(1) == torch.from_numpy(subjects)).float().mean().item()
    print(f"fresh practice views named right: {right:.4f}")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, str(WEIGHTS))


class Judge:
    """Names the subjects and the background of a picture."""

    def __init__(self) -> None:
        self.model = Classifier()
        self.model.load_state_dict(load_file(str(WEIGHTS)))
        self.model.eval()
        self.colours = np.asarray(list(world.BACKGROUNDS.values()), np.float32)

    def subjects(self, picture: np.ndarray, count: int) -> list[int]:
        """uint8 `[H, W, 3]` with `count` subjects side by side -> their indices in `world.NAMES`."""
        height, width, _ = picture.shape
        step = width // count
        views = []
        for i in range(count):
            left, top = step * i + (step - VIEW) // 2, (height - VIEW) // 2
            view = Image.fromarray(picture[top : top + VIEW, left : left + VIEW])
            views.append(np.asarray(view.resize((SIDE, SIDE), Image.BILINEAR), np.float32) / 255)
        with torch.no_grad():
            return self.model(torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)).argmax(1).tolist()

    def background(self, picture: np.ndarray) -> int | None:
        """Index in `world.COLOURS` of what is nearest to the frame's median; None where none is near."""
        frame = np.concatenate((picture[:FRAME].reshape(-1, 3), picture[-FRAME:].reshape(-1, 3)))
        distance = np.linalg.norm(self.colours - np.median(frame, axis=0), axis=1)
        return int(distance.argmin()) if distance.min() <= FARTHEST else None


if __name__ == "__main__":
    train()
