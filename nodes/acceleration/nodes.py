"""The acceleration nodes: all dials as one value, the same on a bare MODEL, and its report."""

from __future__ import annotations

import json

from comfy_api.v0_0_2 import io

from ..base import sockets
from ..base.notices import reports_errors, show_status
from .apply import apply_acceleration, read_reports
from .calibration_files import BUILT_IN, choose_calibration
from .chart import chart_image
from .inputs import list_acceleration_inputs, make_level_input
from .report import RunReport, join_reports
from .settings import choose_acceleration, describe, make_acceleration


class KleinodAcceleration(io.ComfyNode):
    """Every field of Runware's `acceleration` and `acceleratorOptions`, and ours, as one value."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KleinodAcceleration",
            display_name="Klein Acceleration",
            category="Kleinod/acceleration",
            description="All dials of acceleration as one value, for Klein Sampler, Klein Apply Acceleration "
            "and Klein Runware alike. info says what they add up to.",
            search_aliases=[
                "cache",
                "teacache",
                "fbcache",
                "first block cache",
                "dbcache",
                "cache-dit",
                "speed up",
                "wavespeed",
                "easycache",
                "magcache",
                "faster",
            ],
            inputs=list_acceleration_inputs(),
            outputs=[
                sockets.Acceleration.Output(
                    "acceleration",
                    display_name="acceleration",
                    tooltip="For Klein Sampler, Klein Apply Acceleration or Klein Runware.",
                ),
                io.String.Output(
                    "info",
                    display_name="info",
                    tooltip="The method, what its threshold means inside, which steps a run of 28 or 50 "
                    "skips, and what Runware is sent.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, calibration=BUILT_IN, **others) -> str:
        # A calibration can be measured again under the same name.
        return repr(choose_calibration(calibration))

    @classmethod
    @reports_errors()
    def execute(cls, acceleration, calibration=BUILT_IN, **widgets) -> io.NodeOutput:
        value = make_acceleration(choose_calibration(calibration), acceleration=acceleration, **widgets)
        return io.NodeOutput(value, describe(value))


class KleinodApplyAcceleration(io.ComfyNode):
    """Acceleration for graphs of ComfyUI's own sampler nodes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KleinodApplyAcceleration",
            display_name="Klein Apply Acceleration",
            category="Kleinod/acceleration",
            description="Makes a MODEL skip the steps that can be foreseen, for KSampler, "
            "SamplerCustomAdvanced and every other sampler node. After each run its report appears under "
            "this node. The forecast works on models other than Klein, too.",
            search_aliases=[
                "cache",
                "easycache",
                "teacache",
                "speed up ksampler",
                "accelerate model",
                "fbcache",
                "first block cache",
                "wavespeed",
                "lazycache",
                "magcache",
                "faster",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model to accelerate, before it goes into a sampler."),
                make_level_input(
                    default="medium",
                    tooltip="low, medium, high and highest are speeds; strong guidance and pictures that are "
                    "hard to foresee lower them. none hands the model on untouched.",
                ),
                sockets.Acceleration.Input(
                    "acceleration_settings",
                    optional=True,
                    tooltip="A Klein Acceleration with all the dials. It wins over acceleration.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="For the sampler.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @reports_errors()
    def execute(cls, model, acceleration, acceleration_settings=None) -> io.NodeOutput:
        hidden = cls.hidden

        def tell(report: RunReport) -> None:
            show_status(hidden, report.line())

        chosen = choose_acceleration(acceleration, acceleration_settings)
        return io.NodeOutput(apply_acceleration(model, chosen, tell))


class KleinodAccelerationReport(io.ComfyNode):
    """What an accelerated model did in a core sampler node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KleinodAccelerationReport",
            display_name="Klein Acceleration Report",
            category="Kleinod/acceleration",
            description="Says which steps ComfyUI's own sampler nodes computed and which were reused on a "
            "model from Klein Apply Acceleration. Klein Sampler has these outputs itself.",
            search_aliases=["cache report", "cache hits", "skipped steps", "speed up chart", "teacache"],
            inputs=[
                io.Model.Input("model", tooltip="The model from Klein Apply Acceleration."),
                io.Latent.Input(
                    "latent",
                    tooltip="What the sampler made; it is handed on. Only samplers before this input are "
                    "reported.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The latent, as it came."),
                io.String.Output(display_name="report", tooltip="One readable line for each run."),
                io.String.Output(display_name="data", tooltip="The same as JSON, step by step."),
                io.Image.Output(display_name="chart", tooltip="The same as a picture."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    @reports_errors()
    def execute(cls, model, latent) -> io.NodeOutput:
        runs = read_reports(model, cls.hidden)
        data = json.dumps({"runs": [run.data() for run in runs]})
        return io.NodeOutput(latent, join_reports(runs), data, chart_image(runs))
