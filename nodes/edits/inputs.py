"""The inputs and outputs of Klein Inpaint and Klein Outpaint, with ranges and tooltips."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..base import sockets
from ..base.field_inputs import make_input, make_inputs
from ..regions.request import BATCH_LIMIT, CROP_REFERENCE, STRENGTH_MODE
from .canvas import (
    ANCHOR,
    ASPECT_FIELD,
    BOTTOM,
    FILL,
    HEIGHT,
    LEFT,
    OUTPAINT_AREA,
    OVERLAP,
    RIGHT,
    TOP,
    WAY,
    WIDTH,
)
from .request import (
    AREA,
    COLOUR_MATCH,
    CONTEXT,
    EDGE_UNIT,
    FEATHER,
    GROW,
    GUIDANCE,
    MEGAPIXELS,
    REGIONS,
    RESULTS,
    SEED,
    STEPS,
    STRENGTH,
)

_MODE = (
    "noise-level: strength is the share of noise a region starts with, and all steps run. schedule: strength "
    "is the share of the steps that run, as in other programs; with FLUX.2 even 0.3 then starts with about "
    "77% noise."
)
_LIMIT = (
    "Regions painted at once. More is faster and needs more memory; where that runs out, fewer are tried. "
    "The result is the same."
)


def list_inpaint_inputs() -> list[io.Input]:
    return [
        io.Image.Input("image", tooltip="The picture, or a batch of them. Transparency stays as it is."),
        io.Mask.Input(
            "mask",
            tooltip="What is to be painted (white), of any size; soft edges blend. One mask for all pictures "
            "or one each; several masks with one picture are a region each.",
        ),
        *_list_models("Not loaded where the mask is empty."),
        _prompt(
            "What the regions show, or what is to be done to them: image 1 is the place as it is, references "
            "follow as image 2 and so on. Empty: the positive conditioning."
        ),
        make_input(AREA),
        make_input(STRENGTH),
        *make_inputs((STEPS, GUIDANCE)),
        make_input(SEED, control_after_generate=True),
        *make_inputs((CONTEXT, MEGAPIXELS, GROW, FEATHER, EDGE_UNIT, COLOUR_MATCH, RESULTS)),
        _clip(),
        _negative_prompt(),
        io.String.Input(
            "region_prompts",
            default="",
            multiline=True,
            optional=True,
            tooltip="One line a region, from left to right, or in the order of the masks. Empty line: the "
            "shared prompt. [SKIP]: leave that region. [PROMPT] stands for prompt.",
        ),
        *_list_optional("regions"),
        make_input(REGIONS),
        make_input(CROP_REFERENCE),
        *_list_last(),
    ]


def list_outpaint_inputs() -> list[io.Input]:
    return [
        io.Image.Input("image", tooltip="The picture, or a batch of them. Transparency stays as it is."),
        *_list_models("Not loaded where nothing is added."),
        _prompt(
            "What the whole new picture shows: image 1 is the old one on its new canvas, references follow "
            "as image 2 and so on. Empty: the positive conditioning."
        ),
        *make_inputs((WAY, LEFT, TOP, RIGHT, BOTTOM, ASPECT_FIELD, WIDTH, HEIGHT, ANCHOR, OVERLAP)),
        make_input(OUTPAINT_AREA),
        *make_inputs((STEPS, GUIDANCE)),
        make_input(SEED, control_after_generate=True),
        *make_inputs((MEGAPIXELS, COLOUR_MATCH, RESULTS)),
        _clip(),
        _negative_prompt(),
        *_list_optional("the new part"),
        make_input(FILL),
        make_input(CONTEXT, optional=True, advanced=True),
        make_input(STRENGTH, optional=True, advanced=True),
        make_input(CROP_REFERENCE),
        *_list_last(),
    ]


def list_outputs() -> list[io.Output]:
    """Those behind the picture."""
    return [
        io.Mask.Output(display_name="mask", tooltip="What may have changed: where it is black no bit did."),
        io.Image.Output(
            display_name="crops_before",
            is_output_list=True,
            tooltip="Every region as the model saw it; nothing comes where none was painted.",
        ),
        io.Image.Output(
            display_name="crops_after", is_output_list=True, tooltip="The same places afterwards."
        ),
        io.String.Output(
            display_name="info",
            tooltip="Every region with its place, size, noise level and seed, and how much was kept.",
        ),
    ]


def _list_models(when: str) -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip=f"A FLUX.2 [klein] model, LoRAs included, from Klein Loader. {when}"),
        io.Vae.Input("vae", tooltip="The FLUX.2 VAE."),
    ]


def _prompt(tooltip: str) -> io.Input:
    return io.String.Input("prompt", default="", multiline=True, tooltip=tooltip)


def _clip() -> io.Input:
    return io.Clip.Input(
        "clip",
        optional=True,
        tooltip="The CLIP of Klein Loader, for the prompts. Only with both conditionings it is not needed.",
    )


def _negative_prompt() -> io.Input:
    return io.String.Input(
        "negative_prompt",
        default="",
        multiline=True,
        optional=True,
        tooltip="What should not show. Read with guidance above 1. Empty: the negative conditioning.",
    )


def _list_optional(what: str) -> list[io.Input]:
    return [
        io.Conditioning.Input(
            "positive",
            optional=True,
            tooltip="Instead of prompt: the prompt of the picture. References in it are of the whole picture "
            "and are not used.",
        ),
        io.Conditioning.Input(
            "negative", optional=True, tooltip="Instead of negative_prompt: that of the picture."
        ),
        sockets.References.Input(
            "references",
            optional=True,
            tooltip="Pictures to paint from, from Klein References. They follow the picture itself as image "
            "2, image 3 and so on.",
        ),
        sockets.Acceleration.Input(
            "acceleration", optional=True, tooltip=f"From Klein Acceleration: paints {what} faster."
        ),
    ]


def _list_last() -> list[io.Input]:
    return [make_input(STRENGTH_MODE, tooltip=_MODE), make_input(BATCH_LIMIT, tooltip=_LIMIT)]
