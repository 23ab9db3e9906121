"""Fitting the linear code behind klein-nano's latents (the layout is `nodes/model/nano_autoencoder.py`'s).

Principal components of 8 x 8 pixel patches of the world, each scaled to unit variance: the job that batch
norm statistics do in FLUX.2's own VAE.

`python -m tools.nano.codec` fits it anew, which makes all trained weights useless.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import world

ROOT = Path(__file__).resolve().parents[2]
FITTED = Path(__file__).with_name("code.safetensors")  # kept: latents of older weights depend on it


def load_pack_module(name: str):
    """A torch-only module of `nodes/model/` by path: training must not need ComfyUI's import of the pack."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "nodes" / "model" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


autoencoder = load_pack_module("nano_autoencoder")
PATCH, KEPT, fold = autoencoder.PATCH, autoencoder.KEPT, autoencoder.fold


def patches(pixels: Tensor) -> Tensor:
    """uint8 pictures `[B, H, W, 3]` -> rows `[B * H/8 * W/8, 192]` in -1..1."""
    b, h, w, _ = pixels.shape
    x = pixels.to(torch.float32) / 127.5 - 1.0
    cells = x.view(b, h // PATCH, PATCH, w // PATCH, PATCH, 3)
    return cells.permute(0, 1, 3, 2, 4, 5).reshape(-1, PATCH * PATCH * 3)


@dataclass(frozen=True)
class LinearCode:
    """patch = mean + basis @ (deviation * z): mean `[192]`, orthonormal basis `[192, KEPT]`, deviation."""

    mean: Tensor
    basis: Tensor
    deviation: Tensor

    def encode(self, pixels: Tensor) -> Tensor:
        """uint8 pictures `[B, H, W, 3]` -> z `[B, KEPT, H/8, W/8]`."""
        b, h, w, _ = pixels.shape
        z = (patches(pixels) - self.mean) @ self.basis / self.deviation
        return z.view(b, h // PATCH, w // PATCH, KEPT).permute(0, 3, 1, 2)

    def kernel(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution that encodes pictures in -1..1."""
        model = autoencoder.NanoAutoencoder()
        model.set_linear_code(self.mean, self.basis, self.deviation)
        return model.to_code.weight.detach(), model.to_code.bias.detach()

    def loss_weights(self) -> Tensor:
        """`[4 * KEPT]`: deviation^0.7 per folded channel, mean 1 (design.md section 6)."""
        weights = (self.deviation**0.7).repeat_interleave(4)
        return weights / weights.mean()

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {"mean": self.mean, "basis": self.basis.contiguous(), "deviation": self.deviation}, str(path)
        )

    @staticmethod
    def load(path: Path) -> LinearCode:
        return LinearCode(**load_file(str(path)))


def random_single(rng: np.random.Generator) -> np.ndarray:
    subject = int(rng.integers(len(world.NAMES)))
    return world.paint([world.anywhere(subject, rng)], int(rng.integers(len(world.COLOURS))))


def fit(seed: int = 0, pictures: int = 2000) -> LinearCode:
    rng = np.random.default_rng(seed)
    x = patches(torch.from_numpy(np.stack([random_single(rng) for _ in range(pictures)])))
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((x - mean).T))
    return LinearCode(mean, vectors.flip(1)[:, :KEPT].contiguous(), values.flip(0)[:KEPT].sqrt())


if __name__ == "__main__":
    fit().save(FITTED)
