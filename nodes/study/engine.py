"""Klein Compare's runs inside ComfyUI."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..acceleration.patch import KEY
from ..base import seams
from ..base.sentences import Sentence, say
from ..model.engine import facts_of
from ..sampling.engine import sample_pictures
from ..sampling.request import SamplingRequest
from . import metrics
from .comparison import Candidate, Outcome

WrappersMP = seams.find("comfy.patcher_extension:WrappersMP")

Tell = Callable[[Sentence], None]
# Loading and compiling happen in the first steps ever run; they belong to no candidate.
WARM_UP_STEPS = 2


def compare(
    model: Any,
    positive: Any,
    negative: Any,
    vae: Any,
    request: SamplingRequest,
    candidates: Sequence[Candidate],
    tell: Tell = lambda text: None,
) -> list[Outcome]:
    """Run every candidate at the request's seed; the first is what the others are compared with.

    tell: gets a line before each run. An interrupt ends it as it ends any sampling.
    """
    seams.require(seams.STUDY)
    model = without_acceleration(model)
    tell(say("warming up"))
    sample_pictures(model, positive, negative, vae, replace(request, steps=WARM_UP_STEPS))
    outcomes: list[Outcome] = []
    whole = 0
    for number, candidate in enumerate(candidates):
        tell(say("%1 of %2: %3", number + 1, len(candidates), candidate.name))
        meter = _Meter()
        asked = replace(request, steps=candidate.steps, scheduler=candidate.scheduler)
        started = _now()
        made = sample_pictures(
            meter.watch(_with_core_cache(model, candidate)), positive, negative, vae, asked,
            acceleration=candidate.acceleration,
        )  # fmt: skip
        seconds = _now() - started
        image = made.image[:1].float().cpu()
        whole = whole or meter.tokens
        first = outcomes[0].image if outcomes else image
        work, pattern = meter.tokens / max(whole, 1), ""
        errors: tuple[float, ...] = ()
        notes: tuple[str, ...] = ()
        if candidate.acceleration is not None and made.runs:
            run = made.runs[0]
            work, pattern, notes = 1 / run.speed, run.pattern, tuple(run.notes)
            errors = tuple(record.error for record in run.records if record.error is not None)
        likeness = float(metrics.psnr(image, first)[0]), float(metrics.ssim(image, first)[0])
        outcomes.append(Outcome(candidate, image, seconds, work, *likeness, pattern, errors, notes))
    return outcomes


def describe_machine(model: Any) -> dict[str, Any]:
    """What the pictures were made on and with: class and weights' type of the model, device, versions."""
    device = model.load_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    facts = facts_of(model)
    return {
        "model": facts.family if facts else type(model.model).__name__,
        "weights": str(model.model_dtype()).removeprefix("torch."),
        "device": name,
        "torch": torch.__version__,
        "comfyui": seams.version(),
    }


def without_acceleration(model: Any) -> Any:
    """`model` without what Klein Apply Acceleration gave it: every run here brings its own."""
    plain = model.clone()
    plain.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    return plain


def _now() -> float:
    """Seconds, once the device has done all it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _with_core_cache(model: Any, candidate: Candidate) -> Any:
    """With ComfyUI's EasyCache where the candidate is one; it gets a copy of x, into which it writes."""
    if candidate.core_threshold is None:
        return model
    seams.require(seams.RIVAL)

    def lend_a_copy(executor: Any, x: Tensor, *rest: Any, **named: Any) -> Tensor:
        return executor(x.clone(), *rest, **named)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "kleinod.compare", lend_a_copy)
    core_cache = seams.find("comfy_extras.nodes_easycache:EasyCacheNode")
    return core_cache.execute(model, candidate.core_threshold, 0.15, 0.95, False).args[0]


class _Meter:
    """Counts the tokens that really enter the network's blocks."""

    def __init__(self) -> None:
        self.tokens = 0

    def watch(self, model: Any) -> Any:
        watched = model.clone()
        watched.set_model_patch(self._count, "post_input")
        return watched

    def _count(self, inputs: dict[str, Any]) -> dict[str, Any]:
        image, text = inputs["img"], inputs["txt"]
        self.tokens += image.shape[0] * (image.shape[1] + text.shape[1])
        return inputs
