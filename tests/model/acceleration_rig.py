"""What the acceleration tests share: a counter of real block executions, and one sampling run through
core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from tests.model.tiny_klein import DOUBLE, SINGLE, random_conditioning

BLOCKS = DOUBLE + SINGLE


@dataclass
class BlockCounter:
    """Executions of each block of the network itself, seen by PyTorch's own hooks.

    rows: rows of the batch that ran, per block name. tokens: rows times sequence length.
    """

    rows: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    handles: list[Any] = field(default_factory=list)

    @classmethod
    def watch(cls, model: Any) -> BlockCounter:
        counter = cls()
        network = model.model.diffusion_model
        for kind in ("double_blocks", "single_blocks"):
            for i, block in enumerate(getattr(network, kind)):
                counter.handles.append(
                    block.register_forward_pre_hook(counter._note(f"{kind}.{i}"), with_kwargs=True)
                )
        return counter

    def _note(self, name: str) -> Any:
        def note(module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
            image = args[0] if args else kwargs["img"]
            length = image.shape[1] + (kwargs["txt"].shape[1] if "txt" in kwargs else 0)
            self.rows[name] = self.rows.get(name, 0) + image.shape[0]
            self.tokens[name] = self.tokens.get(name, 0) + image.shape[0] * length

        return note

    @property
    def total(self) -> int:
        return sum(self.rows.values())

    def reset(self) -> None:
        self.rows.clear()
        self.tokens.clear()

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


def near(steps: int = 12, start: float = 0.5, width: float = 0.0002) -> Tensor:
    """Sigmas so close together that a right cache is nearly exact even on random weights."""
    return torch.linspace(start, start - width, steps + 1)


def noise(batch: int = 1, size: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 128, size, size, generator=generator)


def sample(
    model: Any,
    sigmas: Tensor,
    sampler: Any = "euler",
    cfg: float = 4.0,
    start: Tensor | None = None,
    positive: Any = None,
    negative: Any = None,
    latent: Tensor | None = None,
    mask: Tensor | None = None,
    callback: Any = None,
    seed: int = 3,
) -> Tensor:
    """One run of CFGGuider, as SamplerCustomAdvanced makes it."""
    start = noise() if start is None else start
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive or random_conditioning(1), negative or random_conditioning(2))
    guider.set_cfg(cfg)
    return guider.sample(
        start,
        torch.zeros_like(start) if latent is None else latent,
        comfy.samplers.sampler_object(sampler) if isinstance(sampler, str) else sampler,
        sigmas.clone(),
        denoise_mask=mask,
        callback=callback,
        disable_pbar=True,
        seed=seed,
    )


def moved(result: Tensor, sigmas: Tensor, start: Tensor | None = None) -> Tensor:
    """How far x went: what `near` schedules are compared by, since x itself hardly changes.

    ComfyUI hands back x / (1 - last sigma) of a run that stops early.
    """
    start = noise() if start is None else start
    return result * (1 - sigmas[-1]) - start * sigmas[0]


def relative_error(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


def with_references(conditioning: list, latents: Sequence[Tensor]) -> list:
    return [[text, {**extra, "reference_latents": list(latents)}] for text, extra in conditioning]
