"""Socket types of the values in `values.py`, as ComfyUI sees them.

They stand apart from the values so that `values.py` and every pure module import without ComfyUI.
"""

from comfy_api.v0_0_2 import io

Acceleration = io.Custom("KLEINOD_ACCELERATION")
References = io.Custom("KLEINOD_REFERENCES")
Loras = io.Custom("KLEINOD_LORAS")
LoraStack = io.Custom("LORA_STACK")
FaceRefinement = io.Custom("KLEINOD_FACE_REFINEMENT")
RunwareOptions = io.Custom("KLEINOD_RUNWARE_OPTIONS")


def list_sockets(node: type[io.ComfyNode]) -> dict[str, tuple[str, bool]]:
    """Inputs of a node by id: the type as ComfyUI writes it, and whether a value must come."""
    schema = node.SCHEMA or node.GET_SCHEMA()
    return {entry.id: (entry.get_io_type(), not getattr(entry, "optional", False)) for entry in schema.inputs}
