"""Train klein-nano's transformer: `python -m tools.nano.train_transformer --minutes 90 --workers 2`.

Rectified flow on the linear code (`codec.py`): x = (1 - sigma) picture + sigma noise, target noise -
picture, sigma logistic around `SHIFT` as the sampler visits them. Hidden matrices learn with Muon (Jordan
et al. 2024, orthogonalised momentum), the rest with Adam. Workers share the weights in memory: each takes a
copy, computes its update and adds it, so that a slow core delays nobody. One worker is reproducible from
the seed; several are not to the last bit. The learning rate follows the clock: warm-up, plateau, then
linearly to zero at the end of the given minutes.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing as processes
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import codec, forward
from .codec import ROOT, load_pack_module
from .examples import KINDS, Batch, make_batch
from .train_text import Sentences, load_tokenizer

SHIFT = 1.3
AVERAGING = 0.998
MUON_RATE, ADAM_RATE = 0.02, 2e-3
SHAPE = forward.Shape(channels=4 * codec.KEPT)


def orthogonalised(update: Tensor) -> Tensor:
    """Newton-Schulz iteration to the nearest semi-orthogonal matrix, coefficients of Jordan et al."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = update / (update.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Weights:
    """All parameters as views of one flat tensor, so that workers exchange them with one copy."""

    def __init__(self, flat: Tensor, shapes: dict[str, tuple[int, ...]]) -> None:
        self.flat, self.views, start = flat, {}, 0
        for name, size in shapes.items():
            count = math.prod(size)
            self.views[name] = flat[start : start + count].view(size)
            start += count


def is_hidden(name: str) -> bool:
    return "_blocks." in name and name.endswith(".weight")


def rate_at(progress: float) -> float:
    """Share of the full learning rate at `progress` 0..1 of the run."""
    return min(1.0, progress / 0.01, max(0.0, (1.0 - progress) / 0.6))


def sample_sigma(count: int) -> Tensor:
    u = torch.rand(count).clamp(1e-4, 1 - 1e-4)
    return torch.sigmoid(torch.logit(u) + SHIFT)


class Teacher:
    """Makes batches and the loss on them."""

    def __init__(self, comfyui: Path, folder: Path, seed: int) -> None:
        text = load_pack_module("nano_text")
        weights = load_file(str(folder / "text_encoder.safetensors"))
        self.encoder = text.NanoTextEncoder(weights["vocabulary"])
        self.encoder.load_state_dict(weights)
        self.encoder.eval().requires_grad_(False)
        self.sentences = Sentences(load_tokenizer(comfyui), text.PAD_TOKEN)
        self.code = codec.LinearCode.load(codec.FITTED)
        self.weights = self.code.loss_weights()
        self.rng = np.random.default_rng(seed)
        self.rotations: dict[tuple, Tensor] = {}

    def loss(self, state: dict[str, Tensor], kind: str) -> Tensor:
        return self.batch_loss(state, make_batch(kind, self.code, self.rng))

    def batch_loss(self, state: dict[str, Tensor], batch: Batch) -> Tensor:
        with torch.no_grad():
            text = self.encoder(self.sentences.batch(batch.sentences))
        sigma = sample_sigma(len(text))
        clean = batch.latent.flatten(2).transpose(1, 2)
        noise = torch.randn_like(clean)
        mixed = torch.lerp(clean, noise, sigma[:, None, None])
        # A little noise, so that references need not match the training code to the last bit.
        references = [r.flatten(2).transpose(1, 2) for r in batch.references]
        references = [r + 0.05 * torch.randn_like(r) for r in references]
        sizes = tuple(tuple(x.shape[-2:]) for x in (batch.latent, *batch.references))
        if sizes not in self.rotations:
            self.rotations[sizes] = forward.rotary(forward.position_ids(text.shape[1], list(sizes)))
        velocity = forward.transformer(
            state,
            SHAPE,
            torch.cat((mixed, *references), dim=1),
            text,
            sigma,
            self.rotations[sizes],
            clean.shape[1],
        )
        return ((velocity - (noise - clean)).square() * self.weights).mean()


def work(number: int, master: Tensor, average: Tensor, started: float, options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {number % os.cpu_count()})
    if number:
        os.nice(3)
    torch.manual_seed(options.seed * 100 + number)
    teacher = Teacher(options.comfyui, options.folder, options.seed * 100 + number)
    shapes = forward.parameter_shapes(SHAPE)
    local = Weights(torch.empty_like(master), shapes)
    state = {name: view.requires_grad_() for name, view in local.views.items()}
    momentum = {name: torch.zeros(size) for name, size in shapes.items()}
    square = {name: torch.zeros(size) for name, size in shapes.items() if not is_hidden(name)}
    delta = Weights(torch.empty_like(master), shapes)
    kinds, shares = list(KINDS), [share for share, _ in KINDS.values()]
    recent: dict[str, list[float]] = {kind: [] for kind in kinds}
    step, saved = 0, time.time()
    while (progress := (time.time() - started) / (60 * options.minutes)) < 1:
        rate = rate_at(progress)
        local.flat.copy_(master)
        kind = kinds[teacher.rng.choice(len(kinds), p=shares)]
        loss = teacher.loss(state, kind)
        gradients = torch.autograd.grad(loss, list(state.values()))
        recent[kind] = recent[kind][-49:] + [loss.item()]
        step += 1
        with torch.no_grad():
            for (name, change), gradient in zip(delta.views.items(), gradients, strict=True):
                if is_hidden(name):
                    momentum[name].lerp_(gradient, 0.05)
                    update = orthogonalised(gradient.lerp(momentum[name], 0.95))
                    change.copy_(update).mul_(
                        -MUON_RATE * rate * max(1, change.shape[0] / change.shape[1]) ** 0.5
                    )
                else:
                    momentum[name].lerp_(gradient, 0.1)
                    square[name].lerp_(gradient.square(), 0.02)
                    first, second = momentum[name] / (1 - 0.9**step), square[name] / (1 - 0.98**step)
                    change.copy_(first / (second.sqrt() + 1e-8)).mul_(-ADAM_RATE * rate)
            if not torch.isfinite(delta.flat).all():
                raise RuntimeError(f"worker {number}: the update of step {step} is not finite")
            master.add_(delta.flat)
            if number == 0:
                average.lerp_(master, max(1 - AVERAGING, 1 / (step + 1)))
        if step % 50 == 0:
            report = " ".join(f"{k} {np.mean(v):.4f}" for k, v in recent.items() if v)
            print(
                f"worker {number} step {step} {time.time() - started:.0f} s rate {rate:.3f} | {report}",
                flush=True,
            )
        if number == 0 and time.time() - saved > 120:
            save(average, shapes, options.folder / "transformer.safetensors")
            saved = time.time()
    if number == 0:
        save(average, shapes, options.folder / "transformer.safetensors")


def narrow(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Packed weights (`pack.py`) without the channels that carry nothing; unpacked ones as they are."""
    kept = SHAPE.channels
    state["img_in.weight"] = state["img_in.weight"][:, :kept].contiguous()
    state["final_layer.linear.weight"] = state["final_layer.linear.weight"][:kept].contiguous()
    return state


def save(flat: Tensor, shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    temporary = path.with_suffix(".part")
    save_file({name: view.clone() for name, view in Weights(flat, shapes).views.items()}, str(temporary))
    temporary.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comfyui", type=Path, default=ROOT / ".runtime" / "comfyui")
    parser.add_argument("--folder", type=Path, default=ROOT / ".runtime" / "nano")
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", type=Path, help="a transformer.safetensors to start from, packed or not")
    options = parser.parse_args()
    torch.set_num_threads(1)
    state = forward.initial_state(SHAPE, options.seed)
    if options.resume:
        state = narrow(load_file(str(options.resume)))
    shapes = forward.parameter_shapes(SHAPE)
    master = torch.cat([state[name].flatten() for name in shapes]).share_memory_()
    average = master.clone().share_memory_()
    started = time.time()
    processes.spawn(work, (master, average, started, options), nprocs=options.workers)


if __name__ == "__main__":
    main()
