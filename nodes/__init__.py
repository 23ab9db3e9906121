"""Table of contents: every node of the pack, in the order a new user meets them."""

from comfy_api.v0_0_2 import ComfyExtension, io

from .model.nodes import KleinodLoader, KleinodPrompt

NODES: list[type[io.ComfyNode]] = [
    KleinodLoader,
    KleinodPrompt,
]


class KleinodExtension(ComfyExtension):
    """What ComfyUI asks the pack for when it starts."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)


async def comfy_entrypoint() -> KleinodExtension:
    return KleinodExtension()
