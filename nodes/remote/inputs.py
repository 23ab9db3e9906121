"""The inputs of the remote nodes, from the rows of their services.

Order is part of saved workflows: new inputs go to the end.
"""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..base import sockets
from ..base.field_inputs import make_input, make_inputs
from .fields import DEADLINE, MODERATION, PRICE_CHECK, PROFILE, TAKE, UPLOAD_FORMAT
from .services import bfl, runware

_WIDGETS = {"seed": {"control_after_generate": True}}


def _make_main_inputs(fields: tuple) -> list[io.Input]:
    return [make_input(field, **_WIDGETS.get(field.name, {})) for field in fields]


def list_runware_inputs() -> list[io.Input]:
    """Everything of `imageInference` that belongs on the node itself."""
    return [
        *_make_main_inputs(runware.FIELDS),
        sockets.Acceleration.Input(
            "acceleration",
            optional=True,
            tooltip="A Klein Acceleration: sends acceleration and acceleratorOptions.",
        ),
        sockets.Loras.Input(
            "loras",
            optional=True,
            tooltip="A Klein LoRA Stack whose rows carry AIR ids; sent as lora.",
        ),
        sockets.References.Input(
            "references",
            optional=True,
            tooltip="Klein References: up to 4 pictures, sent as inputs.referenceImages.",
        ),
        sockets.FaceRefinement.Input(
            "face_refinement",
            optional=True,
            tooltip="Klein Face Settings, sent as advancedFeatures.ultralytics.",
        ),
        sockets.RunwareOptions.Input(
            "options",
            optional=True,
            tooltip="Klein Runware Options: key profile, price check, output type, webhook.",
        ),
        io.Image.Input(
            "images",
            optional=True,
            tooltip="Reference pictures as a plain IMAGE; each frame counts as one, after references.",
        ),
        *make_inputs(
            (*runware.ADVANCED_FIELDS, MODERATION, DEADLINE, TAKE, UPLOAD_FORMAT, *runware.LATER_FIELDS)
        ),
    ]


def list_runware_option_inputs() -> list[io.Input]:
    return make_inputs(runware.OPTION_FIELDS)


def list_bfl_inputs() -> list[io.Input]:
    """Every field of BFL's klein endpoints."""
    return [
        *_make_main_inputs(bfl.FIELDS),
        sockets.References.Input(
            "references", optional=True, tooltip="Klein References: up to 4 input images."
        ),
        io.Image.Input("input_image", optional=True, tooltip="First input image; each frame counts as one."),
        io.Image.Input("input_image_2", optional=True, tooltip="Second input image."),
        io.Image.Input("input_image_3", optional=True, tooltip="Third input image."),
        io.Image.Input("input_image_4", optional=True, tooltip="Fourth input image."),
        *make_inputs((*bfl.ADVANCED_FIELDS, PROFILE, PRICE_CHECK, MODERATION, DEADLINE, TAKE, UPLOAD_FORMAT)),
    ]


def list_recovery_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "job",
            options=[],
            tooltip="A job from the ledger, unfinished ones first.",
            remote=io.RemoteOptions(route="/kleinod/jobs/choices", refresh_button=True),
        ),
        *make_inputs((MODERATION, DEADLINE)),
    ]


def list_outputs() -> list[io.Output]:
    return [
        io.Image.Output(
            "images",
            display_name="images",
            tooltip="Every picture that arrived, as one batch; one batch for each size if the sizes differ.",
            is_output_list=True,
        ),
        io.Int.Output(
            "seeds", display_name="seeds", tooltip="The seed of each picture.", is_output_list=True
        ),
        io.Float.Output(
            "cost", display_name="cost", tooltip="What this run paid, in USD; 0 for a job paid before."
        ),
        io.String.Output(
            "info", display_name="info", tooltip="JSON: ids, seeds, true sizes, cost, flags and time."
        ),
    ]
