"""Klein Fast Steps: Kleinod Fast for graphs of ComfyUI's own sampler nodes."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io
from torch import Tensor

from ..base import flux2
from ..base.notices import reports_errors
from ..base.schedulers import KLEINOD_FAST
from .engine import build_sampler
from .schedule import MU_AUTO, MU_MODES, build_schedule


class KleinodFast(io.ComfyNode):
    """Kleinod Fast for SamplerCustom and SamplerCustomAdvanced."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        side = {"default": 1024, "min": flux2.MIN_SIZE, "max": flux2.MAX_SIZE, "step": flux2.CELL}
        return io.Schema(
            node_id="KleinodFast",
            display_name="Klein Fast Steps",
            category="Kleinod/acceleration",
            description="Kleinod Fast as SAMPLER and SIGMAS for SamplerCustomAdvanced: fewer and better "
            "steps in place of a cache. In Klein Sampler it is a choice of scheduler.",
            search_aliases=[
                "kleinod fast",
                "sigmas",
                "multistep",
                "fewer steps",
                "flux2 scheduler",
                "ksampler select",
                "basic scheduler",
                "faster",
            ],
            inputs=[
                io.Int.Input(
                    "steps",
                    default=14,
                    min=flux2.MIN_STEPS,
                    max=flux2.MAX_STEPS,
                    tooltip="How often the model is called. 14 stand for about 28 of Euler.",
                ),
                io.Int.Input(
                    "width",
                    **side,
                    tooltip="Width of the picture in pixels. Not used where a latent is connected.",
                ),
                io.Int.Input(
                    "height",
                    **side,
                    tooltip="Height of the picture in pixels. Not used where a latent is connected.",
                ),
                io.Latent.Input("latent", optional=True, tooltip="Takes width and height from this latent."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="Image to image: the share of noise to begin with (noise level, not denoise). "
                    "1 starts from noise alone.",
                ),
                io.Combo.Input(
                    "mu",
                    options=list(MU_MODES),
                    default=MU_AUTO,
                    optional=True,
                    advanced=True,
                    tooltip="How long the steps stay with the composition; see Klein Sampler.",
                ),
            ],
            outputs=[
                io.Sampler.Output(display_name="sampler", tooltip="For SamplerCustomAdvanced."),
                io.Sigmas.Output(display_name="sigmas", tooltip="For SamplerCustomAdvanced."),
            ],
        )

    @classmethod
    @reports_errors()
    def execute(cls, steps, width, height, latent=None, strength=1.0, mu=MU_AUTO) -> io.NodeOutput:
        sigmas = list_fast_sigmas(steps, width, height, latent, mu, strength)
        return io.NodeOutput(build_sampler(KLEINOD_FAST), sigmas)


def list_fast_sigmas(steps: int, width: int, height: int, latent: Any, mu: str, strength: float) -> Tensor:
    """The SIGMAS of Kleinod Fast `[steps + 1]` for a picture of this size; a connected latent has its own."""
    tokens = (width // flux2.CELL) * (height // flux2.CELL)
    if latent is not None:
        shape, ratio = latent["samples"].shape, latent.get("downscale_ratio_spacial") or flux2.CELL
        tokens = (shape[-2] * ratio // flux2.CELL) * (shape[-1] * ratio // flux2.CELL)
    return build_schedule("fast", steps, tokens, mu, strength).sigmas
