"""The inputs of the face nodes, with ranges and tooltips."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..base import sockets
from ..base.field_inputs import make_input, make_inputs
from ..base.values import FACE_FIELDS
from ..regions.request import BATCH_LIMIT, STRENGTH_MODE
from .choice import FIELDS as FILTER_FIELDS
from .plan import SAME_SEED, SEED
from .presets import KLEIN_BASE, PRESET_NAMES


def list_settings_inputs() -> list[io.Input]:
    """The fields of FaceRefinement, the API's first, in its ranges and with its defaults."""
    preset = io.Combo.Input(
        "preset",
        options=list(PRESET_NAMES),
        default=KLEIN_BASE,
        tooltip="Klein: values that suit Klein Base on your own GPU. Klein distilled: 4 steps without "
        "guidance. API defaults: Runware's numbers, which come from Stable Diffusion. These three decide "
        "confidence, mask padding, blur and unit, strength, steps and guidance; custom takes the widgets "
        "below for them, too.",
    )
    return [preset, *make_inputs(FACE_FIELDS)]


def list_refiner_inputs(detectors: list[str]) -> list[io.Input]:
    return [
        io.Image.Input("image", tooltip="The picture, or a batch of them, whose faces are to be refined."),
        io.Model.Input(
            "model",
            tooltip="A FLUX.2 [klein] model, LoRAs included, from Klein Loader. Not loaded where there is no "
            "face.",
        ),
        io.Clip.Input("clip", tooltip="The CLIP of Klein Loader, for the prompts of the faces."),
        io.Vae.Input("vae", tooltip="The FLUX.2 VAE."),
        io.Combo.Input(
            "detector",
            options=detectors,
            default=detectors[0],
            tooltip="Who finds the faces: YOLO files from models/ultralytics (bbox and segm), read safely "
            "and without the ultralytics package. Not used where bounding_boxes or mask is connected.",
        ),
        make_input(SEED, control_after_generate=True),
        *make_inputs(FILTER_FIELDS),
        sockets.FaceRefinement.Input(
            "settings",
            optional=True,
            tooltip="From Klein Face Settings. Without it the preset Klein counts.",
        ),
        io.Conditioning.Input(
            "positive",
            optional=True,
            tooltip="The prompt of the picture, for faces without a prompt of their own. References in it "
            "are of the whole picture and are not used.",
        ),
        io.Conditioning.Input("negative", optional=True, tooltip="The negative prompt of the picture."),
        io.String.Input(
            "face_prompts",
            default="",
            multiline=True,
            optional=True,
            tooltip="One line a face, in order. Empty line: the shared prompt. [SKIP]: leave that face. "
            "[PROMPT] stands for positive_prompt of the settings.",
        ),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="Instead of a detector: every separate region is a face, and its outline the mask. With "
            "bounding_boxes: only the outlines.",
        ),
        io.BoundingBox.Input(
            "bounding_boxes",
            optional=True,
            force_input=True,
            socketless=False,
            tooltip="Instead of a detector: boxes of core's MediaPipe, RT-DETR or SAM nodes.",
        ),
        sockets.References.Input(
            "references",
            optional=True,
            tooltip="Who it is: pictures of the person, from Klein References. They follow the face itself "
            "as image 2, image 3 and so on.",
        ),
        sockets.Acceleration.Input(
            "acceleration", optional=True, tooltip="From Klein Acceleration: paints faces faster."
        ),
        make_input(STRENGTH_MODE),
        make_input(BATCH_LIMIT),
        make_input(SAME_SEED),
    ]
