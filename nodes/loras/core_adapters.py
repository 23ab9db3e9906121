"""Adapters that ComfyUI itself does the sums of: OFT, BOFT, GLoRA, and whole weights.

What a file's tensors are to them is decided in `plan.py`, where sizes are checked: ComfyUI's adapters log an
error and change nothing where something does not fit.
"""

from __future__ import annotations

from torch import Tensor

from ..base import seams
from .parts import BOFT, GLORA, OFT, SET, Part

_ADAPTERS = {
    OFT: seams.find("comfy.weight_adapter.oft:OFTAdapter"),
    BOFT: seams.find("comfy.weight_adapter.boft:BOFTAdapter"),
    GLORA: seams.find("comfy.weight_adapter.glora:GLoRAAdapter"),
}


def change_of(weight: Tensor, part: Part) -> Tensor:
    """What Load LoRA would add to `weight` `[rows, columns]` for `part` at its weight; `weight` is untouched.

    As in ComfyUI a whole weight takes the place of the model's, whatever its row's weight.
    """
    if part.kind == SET:
        return part.tensors[0].to(weight).reshape(weight.shape) - weight
    seams.require(seams.CORE_ADAPTERS)
    adapter = _ADAPTERS[part.kind](set(), part.tensors)
    made = adapter.calculate_weight(
        weight.clone(), part.kind, part.weight, 1.0, None, lambda change: change, weight.dtype
    )
    return made - weight
