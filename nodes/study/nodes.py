"""Klein Compare and Klein Calibrate: measuring acceleration on the user's own model."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..base import flux2, sockets
from ..base.notices import reports_errors, show_status
from ..base.oom_advice import advise_sampling
from ..sampling.request import SamplingRequest
from .calibrating import calibrate, list_subjects
from .comparison import data, format_table, headline, list_candidates
from .engine import compare, describe_machine
from .sheet import plot_image, sheet_image

_SIDE = {"default": 1024, "min": flux2.MIN_SIZE, "max": flux2.MAX_SIZE, "step": flux2.CELL}


def _list_run(guidance: str, seed: str) -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="A FLUX.2 [klein] Base model, with LoRAs if you like."),
        io.Conditioning.Input("positive", tooltip="What the picture shows, from Klein Prompt."),
        io.Conditioning.Input("negative", tooltip="What to steer away from, from Klein Prompt."),
        io.Vae.Input("vae", tooltip="The FLUX.2 VAE, which turns latents into pixels."),
        io.Int.Input("width", **_SIDE, tooltip="Width in pixels. klein-nano is made for 128."),
        io.Int.Input("height", **_SIDE, tooltip="Height in pixels. klein-nano is made for 128."),
        io.Int.Input(
            "steps",
            default=flux2.DEFAULT_STEPS,
            min=8,
            max=flux2.MAX_STEPS,
            tooltip="Steps of the run in which every step is computed: what you paint with, 28 to 50.",
        ),
        io.Float.Input(
            "guidance",
            default=flux2.DEFAULT_GUIDANCE,
            min=flux2.MIN_GUIDANCE,
            max=flux2.MAX_GUIDANCE,
            step=0.1,
            tooltip=guidance,
        ),
        io.Int.Input(
            "seed", default=0, min=0, max=flux2.MAX_SEED, control_after_generate=False, tooltip=seed
        ),
    ]  # fmt: skip


class KleinodCompare(io.ComfyNode):
    """The same picture by every way to get it faster, measured."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def switch(name: str, tooltip: str) -> io.Input:
            return io.Boolean.Input(name, default=True, optional=True, tooltip=tooltip)

        return io.Schema(
            node_id="KleinodCompare",
            display_name="Klein Compare",
            category="Kleinod/acceleration",
            description="Paints one seed on your model with every step computed, then by each way to get it "
            "faster, and measures time, work and likeness.",
            search_aliases=[
                "benchmark",
                "cache comparison",
                "xy plot",
                "psnr",
                "ssim",
                "contact sheet",
                "xyz plot",
                "image compare",
                "speed test",
            ],
            inputs=[
                *_list_run("As in Klein Sampler.", "All pictures have this seed."),
                switch("presets", "Run acceleration low, medium, high and highest."),
                switch(
                    "fewer_steps", "Run Default with fewer steps, at the work of medium, high and highest."
                ),
                switch(
                    "kleinod_fast",
                    "Run the scheduler Kleinod Fast with half the steps, and with those of highest.",
                ),
                switch("easycache", "Run ComfyUI's own EasyCache at its default threshold."),
                sockets.Acceleration.Input(
                    "acceleration_settings",
                    optional=True,
                    tooltip="Your own settings, to be compared as well.",
                ),
                io.Boolean.Input(
                    "differences",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Show under each picture, ten times amplified, where it differs.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="sheet", tooltip="All pictures with their numbers."),
                io.String.Output(display_name="table", tooltip="Time, work, PSNR and SSIM of each run."),
                io.Image.Output(display_name="plot", tooltip="Speed against likeness."),
                io.String.Output(
                    display_name="data",
                    tooltip="The same as a small JSON, without pictures and prompts: post it as it is.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @reports_errors(advise_sampling)
    def execute(
        cls, model, positive, negative, vae, width, height, steps, guidance, seed, presets=True,
        fewer_steps=True, kleinod_fast=True, easycache=True, acceleration_settings=None, differences=True,
    ) -> io.NodeOutput:  # fmt: skip
        hidden = cls.hidden
        candidates = list_candidates(
            steps, presets, fewer_steps, kleinod_fast, easycache, acceleration_settings, guidance
        )
        request = SamplingRequest(width, height, steps, guidance, seed)
        outcomes = compare(
            model, positive, negative, vae, request, candidates, lambda text: show_status(hidden, text)
        )
        table = format_table(outcomes)
        show_status(hidden, headline(outcomes))
        asked = {"width": width, "height": height, "steps": steps, "guidance": guidance, "seed": seed}
        told = data(outcomes, asked, describe_machine(model))
        return io.NodeOutput(sheet_image(outcomes, differences), table, plot_image(outcomes), told)


class KleinodCalibrate(io.ComfyNode):
    """Fits the caches to the user's own model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KleinodCalibrate",
            display_name="Klein Calibrate",
            category="Kleinod/acceleration",
            description="Watches your model paint a few different prompts and fits acceleration and Kleinod "
            "Fast to it: which steps to compute, and how to bridge the others. What ends nearer to the full "
            "run than the built-in rule, on prompts it was not fitted to, is kept and used by itself.",
            search_aliases=[
                "teacache coefficients",
                "fit cache",
                "tune acceleration",
                "calibration",
                "profile model",
            ],
            inputs=[
                *_list_run(
                    "The value you paint with: the fit holds for about this guidance.",
                    "Of the first picture; every further one adds 1.",
                ),
                io.Int.Input(
                    "pictures",
                    default=4,
                    min=1,
                    max=flux2.MAX_RESULTS,
                    tooltip="How many to watch, each of another prompt. 4 are enough for most models; 8 tell "
                    "more.",
                ),
                io.String.Input(
                    "name",
                    default="my klein",
                    tooltip="Under which it is saved. The same name replaces what was fitted for the same "
                    "steps, guidance and model, and keeps the rest.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The text encoder of Klein Loader, so that each picture can have its own prompt.",
                ),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="One prompt a line, four or more, as different as what you paint. Empty takes "
                    "the node's own eight. Needs clip; positive's references go with each.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="What was found, and how far to trust it.")
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    @reports_errors(advise_sampling)
    def execute(
        cls, model, positive, negative, vae, width, height, steps, guidance, seed, pictures, name,
        clip=None, prompts="",
    ) -> io.NodeOutput:  # fmt: skip
        hidden = cls.hidden
        request = SamplingRequest(width, height, steps, guidance, seed)
        subjects, notes = list_subjects(model, positive, clip, prompts, pictures, seed)
        _, report = calibrate(
            model, subjects, negative, request, name, notes, lambda text: show_status(hidden, text)
        )
        show_status(hidden, report)
        return io.NodeOutput(report)
