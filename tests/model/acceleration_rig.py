"""What the acceleration tests share: a counter of real block executions, and one sampling run through
core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import comfy.samplers
import torch
from kleinod.nodes.acceleration.patch import accelerate
from kleinod.nodes.acceleration.report import RunReport
from kleinod.nodes.base.values import HIGHER_REUSES_MORE, Acceleration
from torch import Tensor

from tests.model.tiny_klein import DOUBLE, SINGLE, load_tiny_model, random_conditioning, tiny_vae

BLOCKS = DOUBLE + SINGLE


def make_parts() -> dict[str, Any]:
    """What a sampler needs of a tiny random Klein, by the names of its inputs."""
    return {
        "model": with_short_text(load_tiny_model()),
        "positive": random_conditioning(1),
        "negative": random_conditioning(2),
        "vae": tiny_vae(),
    }


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


def both_with_references(*latents: Tensor) -> dict[str, list]:
    """Prompt and negative prompt of different texts, both with these references."""
    return {
        "positive": with_references(random_conditioning(1), latents),
        "negative": with_references(random_conditioning(2), latents),
    }


def run(model: Any, setting: Acceleration, sigmas: Tensor, **options: Any) -> tuple[Tensor, RunReport]:
    """One accelerated run: how far x went, and the report."""
    told: list[RunReport] = []
    result = sample(accelerate(model, setting, told.append), sigmas, **options)
    return moved(result, sigmas, options.get("start")), told[-1]


def plain(model: Any, sigmas: Tensor, **options: Any) -> Tensor:
    """The same without acceleration."""
    return moved(sample(model, sigmas, **options), sigmas, options.get("start"))


def work_of(report: RunReport) -> float:
    """Unaccelerated steps' worth of work that the report says was done."""
    return sum(record.work for record in report.records)


def percent_before(model: Any, sigmas: Tensor, step: int) -> float:
    """ComfyUI's percentage that lies half way between the sigmas of `step` - 1 and `step`."""
    to_sigma = model.get_model_object("model_sampling").percent_to_sigma
    middle = float(sigmas[step - 1] + sigmas[step]) / 2
    low, high = 0.0, 1.0
    for _ in range(60):
        percent = (low + high) / 2
        low, high = (percent, high) if to_sigma(percent) > middle else (low, percent)
    return high


def _blocks(**settings: Any) -> Acceleration:
    base = {"threshold_meaning": HIGHER_REUSES_MORE, "cache_start_step_percentage": 20}
    return Acceleration("none", **base, **settings)


def with_short_text(model: Any) -> Any:
    """A clone that drops the padding ComfyUI puts before a text of fewer than 512 tokens: the same network on
    a tenth of the tokens, for tests whose subject is not the text.
    """

    def cut(inputs: dict[str, Any]) -> dict[str, Any]:
        if inputs["txt"].shape[1] == 512:
            inputs["txt"], inputs["txt_ids"] = inputs["txt"][:, -24:], inputs["txt_ids"][:, -24:]
        return inputs

    short = model.clone()
    short.set_model_patch(cut, "post_input")
    return short


# Bold enough to skip on random weights, one of every kind and the combinations that share a step.
EVERY: dict[str, Acceleration] = {
    "forecast": Acceleration("high", forecast_error_limit=10.0),
    "first_block": _blocks(fb_cache=True, fb_cache_threshold=1.0),
    "dual_block": _blocks(db_cache=True, db_cache_threshold=1.0, front_blocks=2, back_blocks=1),
    "tea": _blocks(tea_cache=True, tea_cache_distance=1.0, tea_signal="spectral"),
    "guidance": Acceleration("none", guidance_interval=2),
    "refresh": Acceleration("none", reference_cache="refresh", reference_interval=3),
    "exact": Acceleration("none", reference_cache="exact (9B-KV)"),
    "forecast, guidance, refresh": Acceleration(
        "low", forecast_error_limit=10.0, guidance_interval=2, reference_cache="refresh"
    ),
    "first_block, guidance, refresh": _blocks(
        fb_cache=True, fb_cache_threshold=1.0, guidance_interval=2, reference_cache="refresh"
    ),
    "dual_block, refresh": _blocks(
        db_cache=True,
        db_cache_threshold=1.0,
        back_blocks=1,
        reference_cache="refresh",
        reference_interval=4,
    ),
    "tea, exact": _blocks(tea_cache=True, tea_cache_distance=1.0, reference_cache="exact (9B-KV)"),
}


@contextmanager
def memory_short_from(model: Any, step: int) -> Iterator[Callable[..., None]]:
    """A sampler callback after which ComfyUI no longer batches the branches of guidance, from `step` on."""
    base, factor = model.model, model.model.memory_usage_factor

    def callback(now: int, *rest: Any) -> None:
        base.memory_usage_factor = 1e12 if now >= step else factor

    try:
        yield callback
    finally:
        base.memory_usage_factor = factor
