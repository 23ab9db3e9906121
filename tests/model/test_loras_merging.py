"""ComfyUI's own merge and save nodes behind Klein LoRA Stack: rows beside the weights are in what they "
"give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import pytest
import torch
from comfy_extras.nodes_model_merging import (
    CheckpointSave,
    ModelAdd,
    ModelMergeSimple,
    ModelSave,
    ModelSubtract,
)
from comfy_extras.nodes_model_merging_model_specific import ModelMergeFlux1
from kleinod.nodes.base.values import LoraRow, Loras, StageBoundary
from kleinod.nodes.loras.engine import apply_stack
from kleinod.nodes.loras.request import StackRequest
from safetensors.torch import save_file

from tests.model.acceleration_rig import relative_error, with_short_text
from tests.model.lora_files import FORMATS, draw, linear_weights, load_coarse_model, write_lora
from tests.model.test_loras_stages import velocities

QKV = "double_blocks.1.img_attn.qkv"


@pytest.fixture(scope="module")
def plain() -> Any:
    return with_short_text(load_coarse_model())


@pytest.fixture(scope="module")
def other() -> Any:
    """A second model of the same kind, with weights of its own."""
    model = load_coarse_model()
    with torch.no_grad():
        for parameter in model.model.diffusion_model.parameters():
            parameter.mul_(0.75)
    return with_short_text(model)


@pytest.fixture
def folder(model_folders: Path) -> Path:
    """a: a LoRA. b: a LoHa, a DoRA and an OFT, whose change depends on the weight."""
    write_lora(model_folders / "loras" / "a.safetensors", FORMATS["diffusers with prefix"], seed=1)
    rows, columns = linear_weights()[QKV]
    tensors = {
        "single_blocks.0.linear2.lora_A.weight": draw(1, 4, linear_weights()["single_blocks.0.linear2"][1]),
        "single_blocks.0.linear2.lora_B.weight": draw(2, 128, 4),
        "single_blocks.0.linear2.dora_scale": 1 + draw(3, 128, 1).abs(),
        f"{QKV}.oft_blocks": draw(4, rows // 16, 16, 16, step=2**-6),
    }
    save_file(tensors, model_folders / "loras" / "b.safetensors")
    return model_folders / "loras"


def apply(model: Any, *rows: LoraRow, bypass: bool = True) -> Any:
    return apply_stack(model, StackRequest(Loras(rows), bypass=bypass)).model


ROWS = (LoraRow("a", 0.02), LoraRow("b", 0.5))


def same(got: Any, wanted: Any, far: Any) -> None:
    """Both models say the same at every step of a run, and something else than a third."""
    for one, two, three in zip(velocities(got), velocities(wanted), velocities(far), strict=True):
        assert relative_error(one, two) < 1e-5
        assert relative_error(three, two) > 1e-3


def merges() -> dict[str, Any]:
    def simple(first: Any, second: Any) -> Any:
        return ModelMergeSimple().merge(first, second, 0.5)[0]

    def subtract(first: Any, second: Any) -> Any:
        return ModelSubtract().merge(first, second, 0.25)[0]

    def add(first: Any, second: Any) -> Any:
        return ModelAdd().merge(first, second)[0]

    def by_block(first: Any, second: Any) -> Any:
        names = ModelMergeFlux1.INPUT_TYPES()["required"]
        ratios = {name: 0.25 for name in names if name not in ("model1", "model2")}
        return ModelMergeFlux1().merge(first, second, **ratios)[0]

    return {"simple": simple, "subtract": subtract, "add": add, "by block": by_block}


@pytest.mark.parametrize("kind", merges())
@pytest.mark.parametrize("first", [True, False], ids=["stack first", "stack second"])
def test_merges_see_the_rows(kind: str, first: bool, plain: Any, other: Any, folder: Path) -> None:
    merge = merges()[kind]

    def merged(stack: Any) -> Any:
        return merge(stack, other) if first else merge(other, stack)

    beside = apply(plain, *ROWS)
    same(merged(beside), merged(apply(plain, *ROWS, bypass=False)), merged(plain))
    # And the stack itself goes on as it was.
    assert beside.patches == {}


def test_chains_and_clones_are_seen_too(plain: Any, other: Any, folder: Path) -> None:
    beside = apply(apply(plain, ROWS[0]), ROWS[1]).clone()
    into = apply(apply(plain, ROWS[0], bypass=False), ROWS[1], bypass=False)
    merge = merges()["simple"]
    same(merge(beside, other), merge(into, other), merge(plain, other))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was written under nodes."""
    from kleinod.nodes.loras import merging

    lines: list[str] = []
    monkeypatch.setattr(merging, "show", lines.append)
    return lines


def staged(model: Any, weight: float = 0.02) -> Any:
    return apply(model, LoraRow("a", weight, "high", boundary=StageBoundary()))


def test_a_staged_row_is_scaled_with_its_model(plain: Any, other: Any, folder: Path, said: list[str]) -> None:
    merge = merges()["simple"]
    got = velocities(merge(staged(plain), other))
    carrying = velocities(merge(apply(plain, LoraRow("a", 0.02), bypass=False), other))
    without = velocities(merge(plain, other))
    for step in range(8):
        assert relative_error(got[step], (carrying if step < 4 else without)[step]) < 1e-5
    assert relative_error(carrying[0], without[0]) > 1e-3
    assert said == []


def test_a_staged_row_that_a_merge_cannot_take_is_named(
    plain: Any, other: Any, folder: Path, said: list[str]
) -> None:
    merged = merges()["simple"](other, staged(plain))
    wanted = merges()["simple"](other, plain)
    for one, two in zip(velocities(merged), velocities(wanted), strict=True):
        assert relative_error(one, two) < 1e-5
    assert len(said) == 1 and "rows with a stage" in said[0] and "merged weights" in said[0]


@pytest.mark.parametrize("node", [ModelSave, CheckpointSave])
def test_saved_files_hold_the_rows(
    node: Any, plain: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    comfy.model_management.unload_all_models()
    beside, into = apply(staged(plain), *ROWS), apply(plain, *ROWS, bypass=False)
    keys = [f"diffusion_model.{module}.weight" for module in ("single_blocks.0.linear2", QKV)]
    wanted = {key: into.patch_weight_to_device(key, return_weight=True) for key in keys}
    own = {key: plain.model.state_dict()[key].clone() for key in keys}
    before = velocities(beside)
    saver = node()
    saver.output_dir = str(tmp_path)
    extra = {"clip": None, "vae": None} if node is CheckpointSave else {}
    saver.save(beside, filename_prefix="it", **extra)
    (file,) = tmp_path.glob("it*.safetensors")
    state = comfy.utils.load_torch_file(str(file))
    for key in keys:
        assert (state[f"model.{key}"] - wanted[key]).abs().max() < 1e-6
        assert (own[key] - wanted[key]).abs().max() > 1e-3
    assert len(said) == 1 and "the saved file" in said[0]
    for one, two in zip(velocities(beside), before, strict=True):
        assert torch.equal(one, two), "saving a model changed it"


def test_the_report_says_what_a_staged_row_is_not_in(plain: Any, folder: Path) -> None:
    made = apply_stack(plain, StackRequest(Loras((LoraRow("a", 1.0, "low"),))))
    assert "a node that merges or saves the model does not get it" in made.report
