"""What ComfyUI's dynamic memory (its default on NVIDIA cards) asks of us, as far as a CPU can drive it.

Driven here: the patches it lays over a weight while that is cast (`LowVramPatch`: their size, their way
through one buffer, the sum on the copy), and the twins it makes of a patcher by `cached_patcher_init`. Not
driven here: loading and sampling (`test_dynamic_loading.py`, with a stand-in for the card's memory), virtual
memory of a card, pinned buffers, streams; `run.py bench gpu` does on a card.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.lora
import comfy.model_patcher
import pytest
import torch
from kleinod.nodes.loras.nodes import KleinodLoraStack
from kleinod.nodes.model.choices import AUTOMATIC, NANO
from kleinod.nodes.model.nodes import KleinodLoader, KleinodPrompt
from kleinod.nodes.sampling.nodes import KleinodSampler

STYLE, SUBJECT = "klein-nano style.safetensors", "klein-nano subject.safetensors"


@pytest.fixture(scope="module")
def nano() -> Any:
    return KleinodLoader.execute(NANO, "default", AUTOMATIC, "default", AUTOMATIC, "auto").args


def paint(nano: Any, model: Any = None, clip: Any = None, vae: Any = None) -> torch.Tensor:
    positive, negative = KleinodPrompt.execute(clip or nano[1], "a fox", "").args[:2]
    with torch.inference_mode():
        return KleinodSampler.execute(
            model or nano[0], positive, negative, vae or nano[2], 128, 128, 6, 4.0, 5, "Default", 1
        ).args[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_stack_is_laid_over_weights_that_stay_where_they_are(nano: Any, dtype: torch.dtype) -> None:
    stacked = KleinodLoraStack.execute(model=nano[0], rows=f"{STYLE} 0.9\n{SUBJECT} 0.5").args[0]
    state = stacked.model.state_dict()
    assert len(stacked.patches) > 10
    for key in stacked.patches:
        weight = state[key].to(dtype)
        patch = comfy.model_patcher.LowVramPatch(key, stacked.patches)
        expected = comfy.lora.calculate_weight(stacked.patches[key], weight.clone(), key, dtype)
        assert comfy.lora.calculate_shape(stacked.patches[key], weight, key) == weight.shape
        assert not torch.equal(expected, weight)
        assert torch.equal(patch(weight.clone()), expected)
        # Once more with its tensors moved through one buffer, as they travel to a card.
        size = patch.memory_required()
        assert size >= sum(part.nbytes for part in tensors_of(stacked.patches[key]))
        patch.prepare(torch.full((size,), 255, dtype=torch.uint8), None, copy=True, commit=True)
        moved = patch.prepared_patches
        assert all(
            a.data_ptr() != b.data_ptr()
            for a, b in zip(tensors_of(moved), tensors_of(stacked.patches[key]), strict=True)
        )
        assert torch.equal(patch(weight.clone()), expected)
        patch.clear_prepared()


def tensors_of(value: Any) -> list[torch.Tensor]:
    """Every tensor of a patch list, in ComfyUI's order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if hasattr(value, "weights"):
        return tensors_of(value.weights)
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in tensors_of(part)]
    return []


def test_klein_nano_has_twins(nano: Any) -> None:
    """Asked for with several GPUs, and where prompts carry hooks; ComfyUI stops without a way to one."""
    plain = paint(nano)
    twin = nano[0].clone(force_deepcopy=True)
    assert twin.model is not nano[0].model
    assert torch.equal(paint(nano, twin), plain)
    for part in (nano[1].patcher, nano[2].patcher):
        assert part.clone(force_deepcopy=True).model is not part.model
    stacked = KleinodLoraStack.execute(model=nano[0], rows=f"{STYLE} 0.9").args[0]
    assert torch.equal(paint(nano, stacked.clone(force_deepcopy=True)), paint(nano, stacked))


def test_a_text_encoder_of_27_layers_has_a_twin_of_27(tiny_models: Path) -> None:
    loaded = KleinodLoader.execute(
        "flux-2-klein-base-4b-tiny.safetensors", "default", AUTOMATIC, "default", AUTOMATIC, "auto"
    ).args
    model, clip = loaded[:2]
    twin = clip.patcher.clone(force_deepcopy=True)
    assert twin.model is not clip.patcher.model
    assert len(twin.model.qwen3_4b.transformer.model.layers) == 27
    assert twin.get_attachment("nothing") is None
    other = model.clone(force_deepcopy=True)
    assert other.get_attachment("kleinod_facts") == model.get_attachment("kleinod_facts") is not None
