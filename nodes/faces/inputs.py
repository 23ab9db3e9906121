"""The inputs of the face nodes, with ranges and tooltips."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..base import sockets
from ..base.flux2 import MAX_SEED
from ..base.values import MASK_PIXELS, MASK_UNITS, FaceRefinement
from ..sampling.schedule import NOISE_LEVEL, STRENGTH_MODES
from .choice import BY_SIZE, ORDERS
from .plan import BATCH_DEFAULT, BATCH_MAX
from .presets import KLEIN_BASE, PRESET_NAMES

_API = FaceRefinement()
_SET_BY_PRESET = "Set by the preset, unless that is custom."


def list_settings_inputs() -> list[io.Input]:
    """The fields of FaceRefinement, the API's first, in its ranges and with its defaults."""
    return [
        io.Combo.Input(
            "preset",
            options=list(PRESET_NAMES),
            default=KLEIN_BASE,
            tooltip="Klein: values that suit Klein Base on your own GPU. Klein distilled: 4 steps without "
            "guidance. API defaults: Runware's numbers, which come from Stable Diffusion. These three decide "
            "confidence, mask padding, blur and unit, strength, steps and guidance; custom takes the widgets "
            "below for them, too.",
        ),
        io.Float.Input(
            "confidence",
            default=_API.confidence,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="How sure the detector must be of a face. 0.9 leaves out many real ones. "
            f"{_SET_BY_PRESET}",
        ),
        io.Int.Input(
            "mask_padding",
            default=_API.mask_padding,
            min=0,
            max=20,
            tooltip="How far beyond the face anything may change, in mask_unit. Outside of it not a bit "
            f"changes. {_SET_BY_PRESET}",
        ),
        io.Int.Input(
            "mask_blur",
            default=_API.mask_blur,
            min=0,
            max=100,
            tooltip="Width of the transition from old to new, in mask_unit. It runs inwards from the edge of "
            f"the mask. {_SET_BY_PRESET}",
        ),
        io.Float.Input(
            "strength",
            default=_API.strength,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="How much of a face is painted anew. As a noise level (see strength_mode of Klein Face "
            "Refiner) 0.3 sharpens, 0.55 is what 0.4 is on Stable Diffusion, 1 paints from nothing but the "
            f"reference. 0 only detects. {_SET_BY_PRESET}",
        ),
        io.Int.Input(
            "steps",
            default=_API.steps,
            min=1,
            max=100,
            tooltip=f"Steps for a face. Base 20 to 50, distilled 4. {_SET_BY_PRESET}",
        ),
        io.Float.Input(
            "guidance",
            default=_API.guidance,
            min=0.0,
            max=50.0,
            step=0.1,
            tooltip="Runware's CFGScale. On Klein Base about 4, distilled 1; 8 burns colours. 1 and less run "
            f"without the negative prompt. {_SET_BY_PRESET}",
        ),
        io.String.Input(
            "positive_prompt",
            default="",
            multiline=True,
            tooltip="What every face shows. Empty: the prompt of the picture. The face as it is counts as "
            "image 1, references follow as image 2 and so on.",
        ),
        io.String.Input(
            "negative_prompt",
            default="",
            multiline=True,
            tooltip="What faces should not show. Empty: the negative prompt of the picture.",
        ),
        io.Int.Input(
            "inpaint_size",
            default=_API.inpaint_size,
            min=128,
            max=2048,
            step=16,
            tooltip="Side in pixels at which a face with its surroundings is painted. A face already larger "
            "is painted as large as it is. Not sent to Runware, whose API for this model lacks it.",
        ),
        io.Combo.Input(
            "mask_unit",
            options=list(MASK_UNITS),
            default=MASK_PIXELS,
            optional=True,
            tooltip="What mask_padding and mask_blur count on this computer: pixels, as the API does, or "
            f"percent of the face's longer side, so that large and small faces get alike. {_SET_BY_PRESET}",
        ),
        io.Float.Input(
            "context",
            default=_API.context,
            min=1.2,
            max=6.0,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip="Side of the square that is painted, in sides of the face: how much of hair, neck and "
            "light the model sees. More of it leaves fewer pixels for the face. Local only.",
        ),
        io.Float.Input(
            "max_upscale",
            default=_API.max_upscale,
            min=1.0,
            max=16.0,
            step=0.5,
            optional=True,
            advanced=True,
            tooltip="A face is never enlarged more than this; smaller faces are painted below inpaint_size, "
            "so that nothing is invented from a few pixels. Local only.",
        ),
        io.Float.Input(
            "colour_match",
            default=_API.colour_match,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip="Takes back the tint that painting adds, as measured in the ring around the face. 0 is "
            "off. Local only.",
        ),
    ]


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
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=MAX_SEED,
            control_after_generate=True,
            tooltip="Where the noise comes from. Every face of every picture gets a seed of its own from it, "
            "which order, limits and batches do not change.",
        ),
        io.Combo.Input(
            "order",
            options=list(ORDERS),
            default=BY_SIZE,
            tooltip="Which face is number 1: the largest, the surest, the leftmost, or the one nearest the "
            "middle. Decides what top_k keeps, which line of face_prompts belongs to whom, and who goes "
            "first where faces touch.",
        ),
        io.Int.Input(
            "top_k", default=0, min=0, max=1000, tooltip="Paint only so many faces a picture. 0: all."
        ),
        io.Int.Input(
            "min_size",
            default=0,
            min=0,
            max=16384,
            tooltip="Leave out faces whose longer side has fewer pixels. 0: none. Below about 24 there is "
            "nothing left to recognise.",
        ),
        io.Int.Input(
            "max_size",
            default=0,
            min=0,
            max=16384,
            tooltip="Leave out faces whose longer side has more pixels. 0: none.",
        ),
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
        io.Combo.Input(
            "strength_mode",
            options=list(STRENGTH_MODES),
            default=NOISE_LEVEL,
            optional=True,
            advanced=True,
            tooltip="noise-level: strength is the share of noise a face starts with, and all steps run. "
            "schedule: strength is the share of the steps that run, as in other programs and at Runware; "
            "with FLUX.2 even 0.3 then starts with about 77% noise.",
        ),
        io.Int.Input(
            "batch_limit",
            default=BATCH_DEFAULT,
            min=1,
            max=BATCH_MAX,
            optional=True,
            advanced=True,
            tooltip="Faces painted at once. More is faster and needs more memory; where that runs out, fewer "
            "are tried. The result is the same.",
        ),
    ]
