"""The inputs of the remote nodes, with the ranges and defaults of both services' documents.

Order is part of saved workflows: new inputs go to the end.
"""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..base import sockets
from . import bfl, runware
from .results import POLICIES
from .runware import PRICE_CHECKS


def list_runware_inputs() -> list[io.Input]:
    """Everything of `imageInference` that belongs on the node itself."""
    return [
        io.String.Input(
            "positive_prompt",
            multiline=True,
            tooltip="What the picture shows. 1 to 10000 characters.",
        ),
        io.String.Input(
            "negative_prompt",
            multiline=True,
            default="",
            tooltip="What to keep out. Empty is not sent; without effect while cfg_scale is 1.",
        ),
        io.Int.Input(
            "width",
            default=1024,
            min=128,
            max=2048,
            step=16,
            tooltip="Width in pixels, in steps of 16.",
        ),
        io.Int.Input(
            "height",
            default=1024,
            min=128,
            max=2048,
            step=16,
            tooltip="Height in pixels, in steps of 16.",
        ),
        io.Int.Input("steps", default=28, min=1, max=50, tooltip="Denoising steps. More cost more."),
        io.Float.Input(
            "cfg_scale",
            default=3.5,
            min=1.0,
            max=20.0,
            step=0.01,
            tooltip="CFGScale: how closely to follow the prompt. 1 switches guidance off.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=runware.MAX_SEED,
            control_after_generate=True,
            tooltip="The same seed and settings give the same picture, and are paid for once.",
        ),
        io.Int.Input(
            "number_results",
            default=1,
            min=1,
            max=20,
            tooltip="numberResults: pictures in one job, each with a seed of its own, each paid.",
        ),
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
        io.String.Input(
            "model",
            default=runware.MODEL,
            optional=True,
            advanced=True,
            tooltip="Runware's model id. runware:400@5 is klein 4B Base; others may refuse some fields.",
        ),
        io.Combo.Input(
            "scheduler",
            options=list(runware.SCHEDULERS),
            default="Default",
            optional=True,
            advanced=True,
            tooltip="Sampling method by Runware's name. Default is not sent.",
        ),
        io.Combo.Input(
            "acceleration_level",
            options=list(runware.LEVELS),
            default="high",
            optional=True,
            advanced=True,
            tooltip="Runware's own caching. 'none' computes every step: slower, best "
            "quality. A connected acceleration decides instead.",
        ),
        io.Float.Input(
            "true_cfg_scale",
            default=0.0,
            min=0.0,
            max=20.0,
            step=0.01,
            optional=True,
            advanced=True,
            tooltip="settings.trueCFGScale, as in Runware's examples (4). 0 is not sent.",
        ),
        io.Combo.Input(
            "output_format",
            options=list(runware.OUTPUT_FORMATS),
            default="PNG",
            optional=True,
            advanced=True,
            tooltip="outputFormat: PNG keeps every pixel; JPG and WEBP are smaller.",
        ),
        io.Int.Input(
            "output_quality",
            default=95,
            min=20,
            max=99,
            optional=True,
            advanced=True,
            tooltip="outputQuality of JPG and WEBP; not sent for PNG.",
        ),
        io.Boolean.Input(
            "check_content",
            default=False,
            optional=True,
            advanced=True,
            tooltip="safety.checkContent: let Runware check the picture and flag it in info.",
        ),
        io.Combo.Input(
            "safety_mode",
            options=list(runware.SAFETY_MODES),
            default="none",
            optional=True,
            advanced=True,
            tooltip="safety.mode: how it is checked. none is not sent.",
        ),
        io.Int.Input(
            "ttl",
            default=0,
            min=0,
            max=31536000,
            optional=True,
            advanced=True,
            tooltip="Seconds Runware keeps the picture, at least 60. 0 is not sent. Only "
            "for output_type URL.",
        ),
        io.Boolean.Input(
            "include_cost",
            default=True,
            optional=True,
            advanced=True,
            tooltip="includeCost: have the true cost reported. Off leaves only an estimate.",
        ),
        io.Combo.Input(
            "delivery_method",
            options=list(runware.DELIVERIES),
            default="async",
            optional=True,
            advanced=True,
            tooltip="deliveryMethod: async polls and shows progress; sync waits on one long answer.",
        ),
        ask_moderation(),
        ask_deadline(),
        ask_take(),
    ]


def list_bfl_inputs() -> list[io.Input]:
    """Every field of BFL's klein endpoints."""
    return [
        io.String.Input("prompt", multiline=True, tooltip="What the picture shows."),
        io.Int.Input(
            "width",
            default=0,
            min=0,
            max=8192,
            step=16,
            tooltip="Width in pixels from 64 on, in steps of 16. 0 is not sent: BFL "
            "decides, or follows the first input image.",
        ),
        io.Int.Input(
            "height",
            default=0,
            min=0,
            max=8192,
            step=16,
            tooltip="Height in pixels from 64 on, in steps of 16. 0 is not sent.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=bfl.MAX_SEED,
            control_after_generate=True,
            tooltip="The same seed and settings give the same picture, and are paid for once.",
        ),
        sockets.References.Input(
            "references", optional=True, tooltip="Klein References: up to 4 input images."
        ),
        io.Image.Input("input_image", optional=True, tooltip="First input image; each frame counts as one."),
        io.Image.Input("input_image_2", optional=True, tooltip="Second input image."),
        io.Image.Input("input_image_3", optional=True, tooltip="Third input image."),
        io.Image.Input("input_image_4", optional=True, tooltip="Fourth input image."),
        io.Combo.Input(
            "endpoint",
            options=list(bfl.ENDPOINTS),
            default=bfl.ENDPOINTS[0],
            tooltip="Which klein: 4B is the fastest and cheapest, 9B the better.",
        ),
        io.Int.Input(
            "safety_tolerance",
            default=2,
            min=0,
            max=5,
            tooltip="How much moderation lets through: 0 is strict, 5 is lax.",
        ),
        io.Combo.Input(
            "output_format",
            options=list(bfl.OUTPUT_FORMATS),
            default="png",
            tooltip="png keeps every pixel; jpeg is BFL's own default.",
            optional=True,
            advanced=True,
        ),
        io.Combo.Input(
            "region",
            options=["global", "eu", "us"],
            default="global",
            optional=True,
            advanced=True,
            tooltip="Which of BFL's hosts computes the picture.",
        ),
        io.String.Input(
            "webhook_url",
            default="",
            optional=True,
            advanced=True,
            tooltip="An https address BFL calls when the picture is done. Empty is not "
            "sent. Its secret comes from the environment variable "
            "BFL_WEBHOOK_SECRET.",
        ),
        ask_profile(),
        ask_price_check(),
        ask_moderation(),
        ask_deadline(),
        ask_take(),
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


def ask_moderation() -> io.Input:
    return io.Combo.Input(
        "moderation",
        options=list(POLICIES),
        default="error",
        tooltip="When moderation keeps a picture back: stop with its reason, put a grey picture in its "
        "place, or leave it out. With 'error', pictures that did arrive are still delivered.",
        optional=True,
        advanced=True,
    )


def ask_deadline() -> io.Input:
    return io.Int.Input(
        "deadline",
        default=600,
        min=30,
        max=1800,
        tooltip="Seconds to wait. A job that takes longer is not lost: queue again and it is picked up "
        "without paying twice.",
        optional=True,
        advanced=True,
    )


def ask_take() -> io.Input:
    return io.Int.Input(
        "take",
        default=0,
        min=0,
        max=9999,
        tooltip="The same request is paid for once and then comes from disk. Raise this to really run and "
        "pay it again.",
        optional=True,
        advanced=True,
    )


def ask_profile() -> io.Input:
    return io.String.Input(
        "profile",
        default="default",
        tooltip="The name of a stored API key (Settings > Kleinod > API keys), never the key itself.",
        optional=True,
        advanced=True,
    )


def ask_price_check() -> io.Input:
    return io.Combo.Input(
        "price_check",
        options=list(PRICE_CHECKS),
        default=PRICE_CHECKS[0],
        tooltip="Ask what the job costs before it runs, or only ask: then nothing is sent and the rest of "
        "the graph waits.",
        optional=True,
        advanced=True,
    )
