"""A stand-in for a card's memory, with which ComfyUI's `ModelPatcherDynamic` works on a processor.

ComfyUI keeps a model's weights in the computer's memory, gives each layer a place in a reserve of the card
(`ModelVBAR`), and copies, casts and patches a weight into its place when the layer is called
(`comfy.ops.cast_modules_with_vbar`); pages that the card could not spare are asked for anew at every call.
Here the reserve is a plain buffer whose pages are there, are never there, or are taken away between calls,
and weights that lie in the computer's memory say that they are elsewhere. Everything between is ComfyUI's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.memory_management
import comfy.model_management
import comfy.model_patcher
import comfy_aimdo.host_buffer
import comfy_aimdo.model_vbar
import comfy_aimdo.torch
import pytest
import torch

# Equal to no device that a tensor says it is on, so ComfyUI takes it for a card.
CARD = torch.device("cpu", 0)
ELSEWHERE = torch.device("meta")

PLENTY, NONE, TAKEN = "plenty", "none", "taken away between calls"


class Reserve:
    """`ModelVBAR` over a plain buffer. room: PLENTY, NONE or TAKEN. held: places that were not let go."""

    room = PLENTY
    made: list[Reserve] = []

    def __init__(self, size: int, device: int) -> None:
        self.bytes = torch.zeros(int(size), dtype=torch.uint8)
        self.end = 0
        self.calls = itertools.count(1)
        self.held: dict[int, int] = {}
        self.faults = 0
        Reserve.made.append(self)

    def prioritize(self) -> None:
        """Nothing competes here."""

    def alloc(self, size: int) -> tuple[Reserve, int, int]:
        place = (self.end + 511) & ~511
        self.end = place + size
        assert self.end <= self.bytes.numel()
        return self, place, size

    def fault(self, place: int, size: int) -> bytes | None:
        """What names the pages' content: the same as before, another, or None where there is no room."""
        self.faults += 1
        if self.room == NONE:
            return None
        self.held[place] = self.held.get(place, 0) + 1
        return b"same" if self.room == PLENTY else next(self.calls).to_bytes(4, "big")

    def unpin(self, place: int, size: int) -> None:
        assert self.held.get(place, 0) > 0, "let go of what was not held"
        self.held[place] -= 1

    def loaded_size(self) -> int:
        return self.end

    def free_memory(self, size: float) -> int:
        return 0


class HostBuffer:
    """Memory the driver has pinned; there is none here, so every copy takes the slow way."""

    def __init__(self, *_: int) -> None:
        self.size = 0

    def truncate(self, size: int, do_unregister: bool = True) -> None:
        self.size = size


class Elsewhere(torch.nn.Parameter):
    """A weight in the computer's memory, seen from the card."""

    @property
    def device(self) -> torch.device:
        return ELSEWHERE

    def detach(self) -> Elsewhere:
        """Itself once more, so that ComfyUI can put it back where it was."""
        return Elsewhere(self.data, requires_grad=False)


def store(model: torch.nn.Module) -> int:
    """Say of every weight that ComfyUI casts at call time that it is not on the card; how many they are."""
    count = 0
    for layer in model.modules():
        if hasattr(layer, "comfy_cast_weights"):
            for name, weight in list(layer.named_parameters(recurse=False)):
                setattr(layer, name, Elsewhere(weight.data, requires_grad=False))
                count += 1
    return count


@contextmanager
def dynamic_memory(room: str = PLENTY) -> Iterator[pytest.MonkeyPatch]:
    """ComfyUI as main.py sets it up where comfy-aimdo works, with `Reserve` in its place."""
    management = comfy.model_management
    management.unload_all_models()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reserve, "room", room)
        patch.setattr(Reserve, "made", [])
        patch.setattr(comfy_aimdo.model_vbar, "ModelVBAR", Reserve)
        patch.setattr(comfy_aimdo.host_buffer, "HostBuffer", HostBuffer)
        patch.setattr(comfy_aimdo.torch, "aimdo_to_tensor", lambda at, _: at[0].bytes[at[1] : at[1] + at[2]])
        patch.setattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcherDynamic)
        patch.setattr(management.args, "disable_pinned_memory", True)
        patch.setattr(management, "vram_state", management.VRAMState.NORMAL_VRAM)
        patch.setattr(management, "is_device_cpu", lambda device: False)
        # A processor computes in float32, and so does what this is compared with.
        patch.setattr(management, "should_use_fp16", lambda *_, **__: False)
        patch.setattr(management, "LORA_COMPUTE_DTYPES", {})
        for name in ("get_torch_device", "text_encoder_device", "vae_device"):
            patch.setattr(management, name, lambda: CARD)
        yield patch
        management.unload_all_models()


def held(reserves: list[Reserve]) -> int:
    """Places that some call faulted and did not let go: on a card, memory that is never free again."""
    return sum(count for reserve in reserves for count in reserve.held.values())


def patched_at_call(model: Any) -> list[str]:
    """Layers whose weight is patched while it is cast, as opposed to once and for all."""
    return [
        name
        for name, layer in model.model.named_modules()
        if getattr(layer, "weight_lowvram_function", None) is not None and hasattr(layer, "_v")
    ]
