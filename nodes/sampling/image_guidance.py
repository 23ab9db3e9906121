"""Guidance towards the references, beside guidance towards the prompt.

Every step also runs the prompt without its references, and the picture goes further (or less far) from there
to where the references lead: after Brooks et al. 2023 (InstructPix2Pix, eq. 3), the prompt's own guidance as
it is. At guidance 1: v = v_without + s (v_with - v_without).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..base import seams

calc_cond_batch = seams.find("comfy.samplers:calc_cond_batch")

_REFERENCES = ("ref_latents", "ref_latents_method")


def guide_by_references(model: Any, guidance: float) -> Any:
    """A clone of `model` (ModelPatcher) with image guidance; the very `model` at 1."""
    if guidance == 1:
        return model
    seams.require(seams.IMAGE_GUIDANCE)
    guided = model.clone()
    guided.set_model_sampler_post_cfg_function(_ImageGuidance(guidance))
    return guided


def holds_references(conditioning: Any) -> bool:
    """Whether a conditioning shows the model a picture."""
    return any(options.get("reference_latents") for _, options in conditioning)


class _ImageGuidance:
    """A function behind guidance, as ComfyUI calls it once a step."""

    def __init__(self, guidance: float) -> None:
        self._guidance = guidance
        # What is kept of a condition, by its id, must not be mistaken for that of its twin.
        self._twins: dict[Any, uuid.UUID] = {}

    def __call__(self, args: Mapping[str, Any]) -> Tensor:
        conditions = [self._without_references(condition) for condition in args["cond"]]
        (without,) = calc_cond_batch(
            args["model"], [conditions], args["input"], args["sigma"], args["model_options"]
        )
        return args["denoised"] + (self._guidance - 1) * (args["cond_denoised"] - without)

    def _without_references(self, condition: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in condition["model_conds"].items() if key not in _REFERENCES}
        twin = self._twins.setdefault(condition.get("uuid"), uuid.uuid4())
        return {**condition, "model_conds": kept, "uuid": twin}
