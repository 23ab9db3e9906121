"""Table of contents: every node of the pack, in the order a new user meets them."""

import logging
import re
from pathlib import Path

from comfy_api.v0_0_2 import ComfyExtension, io

from .acceleration.learning_files import register_routes as register_learning_routes
from .acceleration.nodes import (
    KleinodAcceleration,
    KleinodAccelerationReport,
    KleinodApplyAcceleration,
)
from .base import seams
from .base.doors import Doors
from .edits.nodes import KleinodInpaint, KleinodKeep, KleinodOutpaint
from .faces.nodes import KleinodFaceRefiner, KleinodFaceSettings
from .loras.library import register_routes as register_lora_routes
from .loras.nodes import KleinodLoraStack
from .model.nodes import KleinodLoader, KleinodPrompt
from .model.own_files import register_routes as register_model_routes
from .references.nodes import KleinodReferences
from .remote.environment import asks_for_code
from .remote.nodes import KleinodBFL, KleinodRecoverJob, KleinodRunware, KleinodRunwareOptions
from .remote.session import register_routes
from .sampling.fast_nodes import KleinodFast
from .sampling.nodes import KleinodSampler
from .sampling.own_seed import tell_known_seeds
from .service.session import register_routes as register_request_routes
from .study.nodes import KleinodCalibrate, KleinodCompare

NODES: list[type[io.ComfyNode]] = [
    KleinodLoader,
    KleinodPrompt,
    KleinodSampler,
    KleinodReferences,
    KleinodLoraStack,
    KleinodAcceleration,
    KleinodApplyAcceleration,
    KleinodAccelerationReport,
    KleinodFast,
    KleinodCompare,
    KleinodCalibrate,
    KleinodFaceSettings,
    KleinodFaceRefiner,
    KleinodInpaint,
    KleinodOutpaint,
    KleinodKeep,
    KleinodRunware,
    KleinodRunwareOptions,
    KleinodBFL,
    KleinodRecoverJob,
]


logger = logging.getLogger("kleinod.pack")


def make_doors() -> Doors:
    """Who is let in to the pack's own addresses, as ComfyUI was started."""
    args = seams.find("comfy.cli_args:args")
    if not args:  # how it was started cannot be known: everyone shows the code
        return Doors(cors="*", multi_user=True, always=True)
    return Doors(cors=args.enable_cors_header, multi_user=args.multi_user, always=asks_for_code())


def open_doors(doors: Doors) -> None:
    """Add the pack's own addresses to ComfyUI's server."""
    for register in (
        register_routes,
        register_lora_routes,
        register_request_routes,
        register_model_routes,
        register_learning_routes,
    ):
        try:
            register(doors)
        except seams.MissingSeam as error:  # the panel it serves stays empty, the rest works
            logger.warning("%s", error)


class KleinodExtension(ComfyExtension):
    """What ComfyUI asks the pack for when it starts."""

    async def on_load(self) -> None:
        folder = Path(__file__).parents[1].name
        if not re.fullmatch(r"[\w-]+", folder, re.ASCII):
            # aiohttp issue 13433: no address with a space is served; a dot ends the page's idea of the name.
            logger.warning(
                'ComfyUI cannot serve everything from a folder named "%s": help, pictures of templates or '
                "panels may be missing. Rename it to kleinod and restart.",
                folder,
            )
        server = seams.find_server()
        if server is not None and not seams.missing(seams.ROUTES):
            open_doors(make_doors())
        if server is not None and not seams.missing(seams.KNOWN_SEEDS):
            server.add_on_prompt_handler(tell_known_seeds)
        for sentence in seams.report():
            logger.warning(sentence)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)


async def comfy_entrypoint() -> KleinodExtension:
    return KleinodExtension()
