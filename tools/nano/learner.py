"""One loop of training for all of klein-nano's nets: on a GPU in CUDA graphs, on a CPU step by step.

Hidden matrices learn with Muon (Jordan et al. 2024, orthogonalised momentum), everything else with Adam. The
learning rate follows the clock, not the steps: warm-up, plateau, then linearly to zero at the end of the
given seconds, so that a slow machine ends its training as well as a fast one. What counts is the running
average of the weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Loss = Callable[[dict[str, Tensor]], Tensor]
CHECKED_EVERY = 20  # steps between two looks at the clock on a device that runs ahead


def orthogonalised(updates: Tensor) -> Tensor:
    """Newton-Schulz iteration of matrices `[N, rows, columns]` to the nearest semi-orthogonal ones,
    coefficients of Jordan et al."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = updates / (updates.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Weights:
    """All parameters as views of one flat tensor, so that an update is one operation."""

    def __init__(self, flat: Tensor, shapes: dict[str, tuple[int, ...]]) -> None:
        self.flat, self.views, start = flat, {}, 0
        for name, size in shapes.items():
            count = math.prod(size)
            self.views[name] = flat[start : start + count].view(size)
            start += count


class Learner:
    """Weights, their optimizer and their average. losses: one for each kind of step."""

    def __init__(
        self,
        start: dict[str, Tensor],
        losses: dict[str, Loss],
        *,
        adam_rate: float,
        muon_rate: float = 0.0,
        hidden: Callable[[str], bool] = lambda name: False,
        averaging: float = 0.998,
        graphs: bool = True,
    ) -> None:
        self.shapes = {name: tuple(tensor.shape) for name, tensor in start.items()}
        flat = torch.cat([tensor.detach().float().flatten() for tensor in start.values()])
        self.device = flat.device
        self.weights = Weights(flat, self.shapes)
        self.state = {name: view.requires_grad_() for name, view in self.weights.views.items()}
        self.average = flat.clone()
        self.first, self.square, self.slow = (torch.zeros_like(flat) for _ in range(3))
        self.change = Weights(torch.empty_like(flat), self.shapes)
        self.groups: dict[tuple[int, ...], list[str]] = {}
        for name, size in self.shapes.items():
            if hidden(name):
                self.groups.setdefault(size, []).append(name)
        self.losses, self.adam_rate, self.muon_rate, self.averaging = losses, adam_rate, muon_rate, averaging
        self.rate, self.count = (torch.zeros((), device=self.device) for _ in range(2))
        self.recent = {kind: torch.zeros((), device=self.device) for kind in losses}
        self.graphs: dict[str, torch.cuda.CUDAGraph] = {}
        if self.device.type == "cuda" and graphs:
            self._capture()

    def averaged(self) -> dict[str, Tensor]:
        return {n: v.clone() for n, v in Weights(self.average, self.shapes).views.items()}

    def run(
        self,
        seconds: float,
        shares: dict[str, float],
        label: str,
        seed: int = 0,
        checkpoint: Callable[[], None] | None = None,
    ) -> int:
        """Train for that long, kinds drawn by their shares; `checkpoint` every two minutes. Returns steps."""
        rng = np.random.default_rng(seed)
        kinds, parts = list(shares), np.asarray(list(shares.values()))
        started = told = saved = time.time()
        step, pause = 0, CHECKED_EVERY if self.device.type == "cuda" else 1
        while (progress := (time.time() - started) / seconds) < 1:
            self.rate.fill_(rate_at(progress))
            for kind in rng.choice(kinds, pause, p=parts / parts.sum()):
                if kind in self.graphs:
                    self.graphs[kind].replay()
                else:
                    self._step(kind)
            step += pause
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            if time.time() - told > 10:
                told = time.time()
                if not torch.isfinite(self.weights.flat).all():
                    raise RuntimeError(f"{label}: the weights are not finite after step {step}")
                report = " ".join(f"{k} {v.item():.4f}" for k, v in self.recent.items())
                print(f"{label} step {step} {told - started:.0f} s | {report}", flush=True)
            if checkpoint and time.time() - saved > 120:
                checkpoint()
                saved = time.time()
        print(f"{label} ended after {step} steps", flush=True)
        return step

    def _step(self, kind: str) -> None:
        loss = self.losses[kind](self.state)
        gradients = torch.autograd.grad(loss, list(self.state.values()))
        with torch.no_grad():
            self.recent[kind].lerp_(loss.detach(), 0.05)
            self._update(torch.cat([gradient.flatten() for gradient in gradients]))

    def _update(self, gradient: Tensor) -> None:
        self.count.add_(1)
        self.first.lerp_(gradient, 0.1)
        self.square.lerp_(gradient.square(), 0.02)
        first = self.first / (1 - 0.9**self.count)
        deviation = (self.square / (1 - 0.98**self.count)).sqrt()
        self.change.flat.copy_(first / (deviation + 1e-8) * (-self.adam_rate * self.rate))
        if self.groups:
            self.slow.lerp_(gradient, 0.05)
            nesterov = Weights(gradient.lerp(self.slow, 0.95), self.shapes).views
            for (rows, columns), names in self.groups.items():
                updates = orthogonalised(torch.stack([nesterov[name] for name in names]))
                updates = updates * (-self.muon_rate * max(1, rows / columns) ** 0.5 * self.rate)
                for name, update in zip(names, updates, strict=True):
                    self.change.views[name].copy_(update)
        self.weights.flat.add_(self.change.flat)
        share = (1 / self.count).clamp(min=1 - self.averaging)
        self.average.add_((self.weights.flat - self.average) * share)

    def _capture(self) -> None:
        """Every kind of step as a CUDA graph: such small nets would wait for their kernels' launches."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):  # at rate zero: nothing moves yet
                for kind in self.losses:
                    self._step(kind)
        torch.cuda.current_stream().wait_stream(side)
        pool = None
        for kind in self.losses:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                self._step(kind)
            pool = graph.pool()
            self.graphs[kind] = graph
        self.count.zero_()


def rate_at(progress: float) -> float:
    """Share of the full learning rate at `progress` 0..1 of the run."""
    return min(1.0, progress / 0.02, max(0.0, (1.0 - progress) / 0.6))
