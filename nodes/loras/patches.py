"""Parts of a stack as ComfyUI's weight patches: one adapter for all changes of one weight, or rows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..base import seams
from .bypass import Slot
from .core_adapters import change_of
from .parts import Part, add_parts

WeightAdapterBase: Any = seams.find("comfy.weight_adapter:WeightAdapterBase") or object

KEY = "kleinod.loras"
"""Ours among the wrappers and callbacks of a MODEL."""

PatchKey = str | tuple[str, tuple[int, int, int]]


class StackAdapter(WeightAdapterBase):
    """All changes of one stack to one weight (or rows of it), as ComfyUI applies weight patches.

    weights: a tuple of `Part`s, or of plain tuples where ComfyUI has moved them.
    """

    name = "kleinod_stack"

    def __init__(self, loaded_keys: set[str], weights: tuple[Any, ...]) -> None:
        self.loaded_keys = loaded_keys
        self.weights = weights

    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: Any,
        function: Callable[[Tensor], Tensor],
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: Any = None,
    ) -> Tensor:
        parts = [Part(*fields) for fields in self.weights]
        if strength != 1.0:
            parts = [part._replace(weight=part.weight * strength) for part in parts]
        if weight.dtype == intermediate_dtype:
            return add_parts(weight, parts, change_of)
        # GPUs keep the weight in float16 here: sum in float32 and round once.
        return weight.copy_(add_parts(weight.to(intermediate_dtype), parts, change_of))


def list_patches(slots: Mapping[Slot, Sequence[Part]], names: Any) -> Iterator[tuple[PatchKey, StackAdapter]]:
    """A patch for each slot. names: the keys of the model's state."""
    for slot, parts in slots.items():
        yield patch_key(slot, names), StackAdapter({slot.module}, tuple(parts))


def patch_key(slot: Slot, names: Any) -> PatchKey:
    """ComfyUI's key of a patch: the weight's name, and which of its rows."""
    key = weight_key(slot.module, names)
    return (key, (0, slot.start, slot.length)) if slot.length else key


def weight_key(module: str, names: Any) -> str:
    """The name of a module's weight in the model's state; norms call theirs `scale`."""
    ending = "weight" if f"diffusion_model.{module}.weight" in names else "scale"
    return f"diffusion_model.{module}.{ending}"
