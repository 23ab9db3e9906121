"""Train the drawing half of klein-nano's autoencoder: `python -m tools.nano.train_autoencoder --minutes
12`.

The linear code is fixed beforehand (`codec.fit`), so this runs beside the transformer's training. Latents
get a little noise, as sampled latents are never exact; the loss is absolute error plus squared error.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from .codec import FITTED, ROOT, LinearCode, autoencoder, random_single

BATCH = 12


def pictures(rng: np.random.Generator, count: int) -> torch.Tensor:
    """uint8 singles as `[B, 3, H, W]` in -1..1."""
    stack = torch.from_numpy(np.stack([random_single(rng) for _ in range(count)]))
    return stack.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0


def psnr(model: torch.nn.Module, rng: np.random.Generator) -> float:
    with torch.no_grad():
        x = pictures(rng, 64)
        return (10 * torch.log10(4 / (model.decode(model.encode(x)).clamp(-1, 1) - x).square().mean())).item()


def train(folder: Path, minutes: float, seed: int) -> None:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    code = LinearCode.load(FITTED)
    model = autoencoder.NanoAutoencoder()
    path = folder / "autoencoder.safetensors"
    if path.exists():
        model.load_state_dict(load_file(str(path)))
    else:
        model.set_linear_code(code.mean, code.basis, code.deviation)
    learned = [p for n, p in model.named_parameters() if not n.startswith("to_code")]
    optimizer = torch.optim.AdamW(learned, lr=1.5e-3, weight_decay=0.0)
    started, step = time.time(), 0
    print(f"round trip before training {psnr(model, np.random.default_rng(9)):.2f} dB", flush=True)
    while (progress := (time.time() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1.5e-3 * min(1.0, progress / 0.02 + 1e-3, (1 - progress) / 0.6)
        x = pictures(rng, BATCH)
        with torch.no_grad():
            latent = model.encode(x)
            latent = latent + 0.08 * torch.rand(len(x), 1, 1, 1) * torch.randn_like(latent)
        error = model.decode(latent) - x
        loss = error.abs().mean() + 2 * error.square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"step {step} {time.time() - started:.0f} s loss {loss.item():.4f}", flush=True)
    print(f"round trip after {step} steps {psnr(model, np.random.default_rng(9)):.2f} dB", flush=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, str(path))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".runtime" / "nano")
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    train(arguments.folder, arguments.minutes, arguments.seed)
