"""Table of contents: every node of the pack, in the order a new user meets them."""

from comfy_api.v0_0_2 import ComfyExtension, io

from .acceleration.nodes import (
    KleinodAcceleration,
    KleinodAccelerationReport,
    KleinodApplyAcceleration,
    KleinodFast,
)
from .acceleration.study_nodes import KleinodCalibrate, KleinodCompare
from .faces.nodes import KleinodFaceRefiner, KleinodFaceSettings
from .loras.library import register_routes as register_lora_routes
from .loras.nodes import KleinodLoraStack
from .model.nodes import KleinodLoader, KleinodPrompt
from .references.nodes import KleinodReferences
from .remote.nodes import KleinodBFL, KleinodRecoverJob, KleinodRunware, KleinodRunwareOptions
from .remote.session import register_routes
from .sampling.nodes import KleinodSampler

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
    KleinodRunware,
    KleinodRunwareOptions,
    KleinodBFL,
    KleinodRecoverJob,
]


class KleinodExtension(ComfyExtension):
    """What ComfyUI asks the pack for when it starts."""

    async def on_load(self) -> None:
        register_routes()
        register_lora_routes()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)


async def comfy_entrypoint() -> KleinodExtension:
    return KleinodExtension()
