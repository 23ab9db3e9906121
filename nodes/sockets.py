"""Socket types of the values in `wires.py`, as ComfyUI sees them.

They stand apart from the values so that `wires.py` and every pure module import without ComfyUI.
"""

from comfy_api.v0_0_2 import io

Acceleration = io.Custom("KLEINOD_ACCELERATION")
References = io.Custom("KLEINOD_REFERENCES")
Loras = io.Custom("KLEINOD_LORAS")
LoraStack = io.Custom("LORA_STACK")
FaceRefinement = io.Custom("KLEINOD_FACE_REFINEMENT")
RunwareOptions = io.Custom("KLEINOD_RUNWARE_OPTIONS")
