"""The remote nodes: the same graph through Runware's and BFL's APIs, and the way back to jobs already paid
for.
"""

from __future__ import annotations

import re

from comfy_api.v0_0_2 import io

from ..base import sockets
from ..base.errors import InputError
from ..base.notices import reports_errors
from ..base.sentences import say
from .inputs import (
    list_bfl_inputs,
    list_outputs,
    list_recovery_inputs,
    list_runware_inputs,
    list_runware_option_inputs,
)
from .job_request import PRICE_OFF
from .services import bfl, runware
from .session import judge_profile, run_job, run_recovery

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class KleinodRunware(io.ComfyNode):
    """The complete `imageInference` request of FLUX.2 [klein] 4B Base at Runware."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KleinodRunware",
            display_name="Klein Runware",
            category="Kleinod/remote",
            description="Draws with FLUX.2 [klein] 4B Base through the Runware API. A job is paid once: "
            "after an interrupt, a crash or a failed neighbour it is picked up where it was.",
            search_aliases=[
                "runware api",
                "remote klein",
                "cloud",
                "flux 2 klein api",
                "image inference",
                "text to image api",
                "no gpu",
            ],
            inputs=list_runware_inputs(),
            outputs=list_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @reports_errors()
    async def execute(
        cls, positive_prompt, negative_prompt, width, height, steps, cfg_scale, seed, number_results,
        acceleration=None, loras=None, references=None, face_refinement=None, options=None, images=None,
        model=runware.MODEL, scheduler="Default", acceleration_level="high", true_cfg_scale=0.0,
        output_format="PNG", output_quality=95, check_content=False, safety_mode="none", ttl=0,
        include_cost=True, delivery_method="async", moderation="error", deadline=600, take=0,
        upload_format="PNG", large_seed="", reference_addresses="",
    ) -> io.NodeOutput:  # fmt: skip
        inputs = {name: value for name, value in locals().items() if name != "cls"}
        return await run_job(cls.hidden.unique_id, "runware", inputs)


class KleinodRunwareOptions(io.ComfyNode):
    """The rarely used part of the Runware request."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KleinodRunwareOptions",
            display_name="Klein Runware Options",
            category="Kleinod/remote",
            description="Which account pays, whether the price is asked first, and where Runware puts the "
            "result.",
            search_aliases=["runware settings", "api key profile", "dry run", "webhook", "upload endpoint"],
            inputs=list_runware_option_inputs(),
            outputs=[
                sockets.RunwareOptions.Output(
                    "options", display_name="options", tooltip="For the options input of Klein Runware."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, profile=None) -> bool | str:
        return judge_profile(profile)

    @classmethod
    @reports_errors()
    def execute(
        cls, profile="default", price_check=PRICE_OFF, output_type="URL", webhook_url="", upload_endpoint=""
    ) -> io.NodeOutput:
        options = runware.RunwareOptions(output_type, webhook_url, upload_endpoint, profile, price_check)
        return io.NodeOutput(options)


class KleinodBFL(io.ComfyNode):
    """The complete request of BFL's klein endpoints."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KleinodBFL",
            display_name="Klein BFL",
            category="Kleinod/remote",
            description="Draws with FLUX.2 [klein] through the Black Forest Labs API. It serves the "
            "distilled klein: no steps, guidance or negative prompt, and other pictures than klein Base "
            "gives.",
            search_aliases=[
                "bfl api",
                "black forest labs",
                "remote klein",
                "cloud",
                "flux 2 klein api",
                "flux api",
                "no gpu",
            ],
            inputs=list_bfl_inputs(),
            outputs=list_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, profile=None) -> bool | str:
        return judge_profile(profile)

    @classmethod
    @reports_errors()
    async def execute(
        cls, prompt, width, height, seed, references=None, input_image=None, input_image_2=None,
        input_image_3=None, input_image_4=None, endpoint=bfl.ENDPOINTS[0], safety_tolerance=2,
        output_format="png", region="global", webhook_url="", profile="default", price_check=PRICE_OFF,
        moderation="error", deadline=600, take=0, upload_format="PNG",
    ) -> io.NodeOutput:  # fmt: skip
        inputs = {name: value for name, value in locals().items() if name != "cls"}
        return await run_job(cls.hidden.unique_id, "bfl", inputs)


class KleinodRecoverJob(io.ComfyNode):
    """An image already paid for."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KleinodRecoverJob",
            display_name="Klein Recover Job",
            category="Kleinod/remote",
            description="Fetches the pictures of a job from the ledger, finished or not, without paying "
            "again.",
            search_aliases=[
                "recover",
                "paid job",
                "ledger",
                "resume",
                "lost image",
                "runware history",
                "job history",
            ],
            inputs=list_recovery_inputs(),
            outputs=list_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, job=None) -> bool | str:
        # Named here because the list lives behind a route: core would compare with an empty list of options.
        if job is None or _UUID.search(str(job)):
            return True
        return "job: pick a job from the list (the refresh button reads the ledger), or paste the id of one."

    @classmethod
    @reports_errors()
    async def execute(cls, job, moderation="error", deadline=600) -> io.NodeOutput:
        found = _UUID.search(job)
        if found is None:
            raise InputError(say("job is '%1', which holds no job id. Pick a job from the list.", job))
        return await run_recovery(cls.hidden.unique_id, found.group(), moderation, deadline)
