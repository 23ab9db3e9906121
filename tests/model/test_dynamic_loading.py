"""ComfyUI's dynamic memory at work: `ModelPatcherDynamic.load`, its casts and `LowVramPatch` at call time.

What every NVIDIA user runs by default, driven on the processor with a stand-in for the card's memory
(`device_memory.py`): weights stay where they are and are copied, cast and patched whenever a layer is called,
kept where there is room and done anew where there is none. Every picture must be the one that ComfyUI's
other patcher gives, bit for bit, and nothing may stay held.

Not driven, for want of a card: comfy-aimdo itself (page faults, its copy of weights straight from the file),
pinned memory and its eviction, streams and the prefetch of the next block (ComfyUI builds no prefetch queue
without streams), a quantized weight that is quantized again after patching, bfloat16's stochastic rounding
of a patched weight that stays on the card. `run.py bench gpu` runs those on a card, both ways side by side.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kleinod.nodes.base.values import Acceleration
from kleinod.nodes.loras.bundled import BUILT_IN
from kleinod.nodes.loras.nodes import KleinodLoraStack
from kleinod.nodes.model.choices import AUTOMATIC, NANO
from kleinod.nodes.model.nodes import KleinodLoader, KleinodPrompt
from kleinod.nodes.references.nodes import KleinodReferences
from kleinod.nodes.sampling.nodes import KleinodSampler
from safetensors.torch import load_file, save_file

from tests.model.device_memory import (
    NONE,
    PLENTY,
    TAKEN,
    Reserve,
    dynamic_memory,
    held,
    patched_at_call,
    store,
)

STYLE, SUBJECT = "klein-nano style.safetensors", "klein-nano subject.safetensors"
INTO, BESIDE = "into the weights", "beside the weights"
# In an order in which each changes what the one before left in the weights: (rows, way, acceleration).
RUNS = {
    "nothing": ("", INTO, None),
    "a stack in the weights": (f"{STYLE} 0.9\n{SUBJECT} 0.5", INTO, None),
    "one weight changed": (f"{STYLE} 0.4\n{SUBJECT} 0.5", INTO, None),
    "a stage each": (f"{STYLE} 0.9 high\n{SUBJECT} 0.5 low", INTO, None),
    "beside the layers": (f"{STYLE} 0.9", BESIDE, None),
    "a block cache": (f"{STYLE} 0.9", INTO, Acceleration("none", fb_cache=True)),
    "nothing again": ("", INTO, None),
}


def load_nano() -> Any:
    return KleinodLoader.execute(NANO, "default", AUTOMATIC, "default", AUTOMATIC, "auto").args[:3]


def stack(model: Any, rows: str, apply: str) -> Any:
    return KleinodLoraStack.execute(model=model, rows=rows, apply=apply).args[0] if rows else model


def paint(parts: Any, model: Any = None, settings: Any = None, references: Any = None) -> torch.Tensor:
    """A picture of a few steps: what is compared is arithmetic, not beauty."""
    positive, negative = KleinodPrompt.execute(parts[1], "a fox", "", references, parts[2]).args[:2]
    inputs = {
        "model": parts[0] if model is None else model, "positive": positive, "negative": negative,
        "vae": parts[2], "width": 128, "height": 128, "steps": 4, "guidance": 4.0, "seed": 5,
        "scheduler": "Default", "results": 1, "acceleration_settings": settings,
    }  # fmt: skip
    with torch.inference_mode():
        return KleinodSampler.execute(**inputs).args[0]


def run_all(parts: Any) -> dict[str, torch.Tensor]:
    return {
        name: paint(parts, stack(parts[0], rows, way), settings)
        for name, (rows, way, settings) in RUNS.items()
    }


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    """By ComfyUI's other patcher, which keeps weights whole."""
    pictures = run_all(load_nano())
    assert torch.equal(pictures["nothing"], pictures["nothing again"])
    different = [picture for name, picture in pictures.items() if name != "nothing again"]
    assert not any(torch.equal(a, b) for i, a in enumerate(different) for b in different[:i])
    return pictures


@pytest.mark.parametrize("room", [PLENTY, NONE, TAKEN])
def test_pictures_are_those_of_weights_kept_whole(room: str, expected: dict[str, torch.Tensor]) -> None:
    with dynamic_memory(room):
        parts = load_nano()
        assert all(patcher.is_dynamic() for patcher in (parts[0], parts[1].patcher, parts[2].patcher))
        assert store(parts[0].model) > 50
        found = run_all(parts)
        assert [name for name in found if not torch.equal(found[name], expected[name])] == []
        assert sum(reserve.faults for reserve in Reserve.made) > 100 and held(Reserve.made) == 0


def test_a_stack_in_the_weights_is_laid_on_while_they_are_cast() -> None:
    """Else the test above would prove nothing: no weight may have been patched once and for all."""
    with dynamic_memory():
        parts = load_nano()
        store(parts[0].model)
        stacked = stack(parts[0], f"{STYLE} 0.9", INTO)
        before = {key: weight.clone() for key, weight in stacked.model.state_dict().items()}
        paint(parts, stacked)
        laid = patched_at_call(stacked)
        assert len(laid) > 30 and {f"{name}.weight" for name in laid} <= set(stacked.patches)
        now = stacked.model.state_dict()
        assert all(torch.equal(now[f"{name}.weight"], before[f"{name}.weight"]) for name in laid)
        paint(parts)
        assert patched_at_call(parts[0]) == []


@pytest.mark.parametrize("room", [NONE, TAKEN])
def test_a_dora_beside_reads_the_weight_that_another_stack_patches_at_call(
    room: str, model_folders: Path
) -> None:
    """Its change depends on the whole weight, which it asks of the layer in the middle of a call."""
    parts = load_nano()
    state = load_file(BUILT_IN / STYLE)
    for key in [key for key in state if key.endswith(".lora_B.weight")]:
        weight = parts[0].model.state_dict()[key.replace(".lora_B", "")]
        state[key.replace("lora_B.weight", "lora_magnitude_vector")] = 1.2 * weight.norm(dim=1)
    save_file(state, model_folders / "loras" / "dora.safetensors")

    def both(model: Any) -> Any:
        return stack(stack(model, f"{SUBJECT} 0.9", INTO), "dora.safetensors 0.5", BESIDE)

    whole = paint(parts, both(parts[0]))
    assert not torch.equal(whole, paint(parts, stack(parts[0], f"{SUBJECT} 0.9", INTO)))
    with dynamic_memory(room):
        parts = load_nano()
        store(parts[0].model)
        assert torch.equal(paint(parts, both(parts[0])), whole) and held(Reserve.made) == 0


def test_references_and_their_memory_between_steps(expected: dict[str, torch.Tensor]) -> None:
    def edit(parts: Any) -> list[torch.Tensor]:
        image = expected["nothing"]
        value = KleinodReferences.execute(
            {"image_1": image}, ["native"], [1.0], [1], ["white"], ["hide the rest"]
        ).args[0]
        ways = (None, Acceleration("none", reference_cache="refresh"))
        return [paint(parts, settings=way, references=value) for way in ways]

    whole = edit(load_nano())
    with dynamic_memory(TAKEN):
        parts = load_nano()
        store(parts[0].model)
        found = edit(parts)
        assert held(Reserve.made) == 0
    assert torch.equal(found[0], whole[0]) and torch.equal(found[1], whole[1])
    assert not torch.equal(found[0], expected["nothing"])


def test_the_twin_without_dynamic_memory_carries_the_stack_along(expected: dict[str, torch.Tensor]) -> None:
    """ComfyUI makes one where prompts carry hooks."""
    with dynamic_memory():
        parts = load_nano()
        store(parts[0].model)
        for name in ("a stack in the weights", "a stage each", "beside the layers"):
            rows, way, _ = RUNS[name]
            twin = stack(parts[0], rows, way).get_non_dynamic_delegate()
            assert not twin.is_dynamic() and twin.model is not parts[0].model
            assert torch.equal(paint(parts, twin), expected[name]), name


def test_saving_a_stack_beside_the_weights_saves_it_in_them() -> None:
    def save(model: Any) -> dict[str, torch.Tensor]:
        """As ComfyUI's save nodes do: each weight is asked for by `to`, patched at that moment."""
        beside = stack(model, f"{STYLE} 0.9", BESIDE)
        return {key: weight.to("cpu").clone() for key, weight in beside.state_dict_for_saving().items()}

    plain = load_nano()[0].model.state_dict()
    whole = save(load_nano()[0])
    with dynamic_memory():
        found = save(load_nano()[0])  # no layer is called, so weights need not say that they are elsewhere
    assert found.keys() == whole.keys()
    assert [key for key in found if not torch.equal(found[key], whole[key])] == []
    changed = [key for key in plain if not torch.equal(plain[key], whole.get(f"model.{key}", plain[key]))]
    assert len(changed) > 10


def test_a_trimmed_text_encoder_and_what_is_attached_to_the_model(tiny_models: Path) -> None:
    def load() -> Any:
        return KleinodLoader.execute(
            "flux-2-klein-base-4b-tiny.safetensors", "default", AUTOMATIC, "default", AUTOMATIC, "auto"
        ).args[:3]

    def read(clip: Any) -> list[torch.Tensor]:
        return [
            KleinodPrompt.execute(clip, text, "").args[0][0][0] for text in ("a fox", "an owl, " * 40, "")
        ]

    whole = load()
    texts, facts = read(whole[1]), whole[0].get_attachment("kleinod_facts")
    for room in (PLENTY, NONE):
        with dynamic_memory(room):
            model, clip, vae = load()
            assert len(clip.patcher.model.qwen3_4b.transformer.model.layers) == 27
            assert store(clip.patcher.model) > 100 and store(vae.patcher.model) >= 0
            assert all(torch.equal(a, b) for a, b in zip(read(clip), texts, strict=True))
            (reserve,) = (each for each in Reserve.made if each.faults)
            assert held([reserve]) == 0
            for patcher in (model, model.clone(), model.get_non_dynamic_delegate()):
                assert patcher.get_attachment("kleinod_facts") == facts is not None
