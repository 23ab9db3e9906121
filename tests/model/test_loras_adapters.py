"""OFT, BOFT, GLoRA and whole weights: as ComfyUI's own Load LoRA applies them, in the weights and beside "
"them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import pytest
import torch
from kleinod.nodes.base.values import LoraRow, Loras
from kleinod.nodes.loras.engine import Stacked, apply_stack
from kleinod.nodes.loras.request import StackRequest
from safetensors.torch import save_file
from torch import Tensor

from tests.model.acceleration_rig import relative_error, with_short_text
from tests.model.lora_files import coarse_state, draw, linear_weights, load_coarse_model
from tests.model.test_loras_stages import velocities

STATE = coarse_state()
QKV, SQUARE = "double_blocks.1.img_attn.qkv", "double_blocks.0.img_attn.proj"
LATER = "single_blocks.2.linear2"


def blocks(seed: int, *shape: int) -> Tensor:
    return draw(seed, *shape, step=2**-5)


def oft(module: str) -> dict[str, Tensor]:
    rows = linear_weights()[module][0]
    return {"oft_blocks": blocks(1, rows // 8, 8, 8), "alpha": torch.tensor(0.25)}


def boft(module: str) -> dict[str, Tensor]:
    rows = linear_weights()[module][0]
    return {
        "oft_blocks": blocks(2, 3, rows // 8, 8, 8),
        "rescale": 1 + blocks(3, rows, 1),
        "alpha": torch.tensor(0.0),
    }


def glora(module: str) -> dict[str, Tensor]:
    rows, columns = linear_weights()[module]
    return {
        "a1.weight": draw(4, columns, 4), "a2.weight": draw(5, 4, columns),
        "b1.weight": draw(6, rows, 4), "b2.weight": draw(7, 4, columns), "alpha": torch.tensor(2.0),
    }  # fmt: skip


def old_glora(module: str) -> dict[str, Tensor]:
    rows, columns = linear_weights()[module]
    return {
        "a1.weight": draw(4, 4, columns), "a2.weight": draw(5, columns, 4),
        "b1.weight": draw(6, 4, columns), "b2.weight": draw(7, rows, 4),
    }  # fmt: skip


def whole(module: str) -> dict[str, Tensor]:
    return {"set_weight": draw(8, *linear_weights()[module])}


def dora_on_oft(module: str) -> dict[str, Tensor]:
    return {**oft(module), "dora_scale": 1 + draw(9, linear_weights()[module][0], 1).abs()}


KINDS = {
    "OFT": oft,
    "BOFT": boft,
    "GLoRA": glora,
    "old GLoRA": old_glora,
    "set": whole,
    "OFT, DoRA": dora_on_oft,
}


@pytest.fixture(scope="module")
def model() -> Any:
    return with_short_text(load_coarse_model())


def write(folder: Path, tensors: dict[str, dict[str, Tensor]], prefix: str = "diffusion_model.") -> Path:
    path = folder / "loras" / "it.safetensors"
    save_file({f"{prefix}{m}.{role}": t for m, roles in tensors.items() for role, t in roles.items()}, path)
    return path


def apply(model: Any, weight: float = 1.0, **options: Any) -> Stacked:
    return apply_stack(model, StackRequest(Loras((LoraRow("it", weight),)), **options))


def patched(model: Any, module: str) -> Tensor:
    return model.patch_weight_to_device(f"diffusion_model.{module}.weight", return_weight=True)


@pytest.mark.parametrize("weight", [1.0, 0.5, -0.75])
@pytest.mark.parametrize("kind", KINDS)
def test_as_load_lora(kind: str, weight: float, model: Any, model_folders: Path) -> None:
    modules = (SQUARE, LATER) if kind == "old GLoRA" else (QKV, LATER)
    path = write(model_folders, {module: KINDS[kind](module) for module in modules})
    stacked = apply(model, weight)
    core, _ = comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(str(path)), weight, 0)
    for module in modules:
        wanted = patched(core, module)
        assert (patched(stacked.model, module) - wanted).abs().max() <= 2e-6 * wanted.abs().max()
        assert (wanted - STATE[f"{module}.weight"]).abs().max() > 1e-3
    assert "2 of 2 modules applied" in stacked.report and "Not used" not in stacked.headline


@pytest.mark.parametrize("kind", KINDS)
def test_beside_the_weights_and_in_stages_it_is_the_same(kind: str, model: Any, model_folders: Path) -> None:
    write(model_folders, {SQUARE: KINDS[kind](SQUARE), LATER: KINDS[kind](LATER)})
    into, beside = apply(model).model, apply(model, bypass=True).model
    assert beside.patches == {}
    for got, wanted, plain in zip(velocities(beside), velocities(into), velocities(model), strict=True):
        assert relative_error(got, wanted) < 1e-5
        assert relative_error(plain, wanted) > 1e-3


def test_rows_of_a_fused_weight_turn_alone(model: Any, model_folders: Path) -> None:
    """diffusers' to_k is the second third of qkv."""
    width = 128
    write(
        model_folders, {"transformer_blocks.1.attn.to_k": {"oft_blocks": blocks(1, 16, 8, 8)}}, "transformer."
    )
    weight = patched(apply(model).model, QKV)
    original = STATE[f"{QKV}.weight"]
    turned = weight[width : 2 * width]
    assert torch.equal(weight[:width], original[:width])
    assert torch.equal(weight[2 * width :], original[2 * width :])
    assert (turned - original[width : 2 * width]).abs().max() > 1e-3
    assert (turned.norm() / original[width : 2 * width].norm() - 1).abs() < 1e-5, "a rotation keeps lengths"


def test_rows_stored_in_another_order_turn_in_theirs(model: Any, model_folders: Path) -> None:
    """diffusers' norm_out.linear has scale before shift."""
    module = "final_layer.adaLN_modulation.1"
    tensors = {"oft_blocks": blocks(1, 32, 8, 8)}
    original = STATE[f"{module}.weight"]
    write(model_folders, {module: {"oft_blocks": torch.cat(tensors["oft_blocks"].chunk(2)[::-1])}})
    wanted = patched(apply(model).model, module)
    write(model_folders, {"norm_out.linear": tensors}, "transformer.")
    assert torch.equal(patched(apply(model).model, module), wanted)
    assert (wanted - original).abs().max() > 1e-3


def test_what_of_a_mixed_file_is_not_applied_is_said_on_the_node(model: Any, model_folders: Path) -> None:
    tensors = {
        QKV: oft(QKV),
        LATER: {"oft_R.weight": torch.zeros(16, 28)},
        SQUARE: {"vera_lambda_b": torch.zeros(4)},
    }
    write(model_folders, tensors)
    stacked = apply(model)
    assert stacked.headline.splitlines()[0] == "1 of 1 LoRAs act: 1 of 3 modules applied."
    assert "cannot put on linear layers (PEFT's OFT, VeRA" in stacked.headline
    assert LATER in stacked.headline and SQUARE in stacked.headline


def test_a_rotation_without_alpha_turns_freely(model: Any, model_folders: Path) -> None:
    """ComfyUI's own BOFT stumbles over a missing alpha and changes nothing."""
    write(model_folders, {QKV: boft(QKV)})
    wanted = patched(apply(model).model, QKV)
    write(model_folders, {QKV: {name: t for name, t in boft(QKV).items() if name != "alpha"}})
    assert torch.equal(patched(apply(model).model, QKV), wanted)


def test_kohyas_split_matrices_get_their_reason(model: Any, model_folders: Path) -> None:
    rows, columns = linear_weights()[QKV]
    split = {f"lora_down.{i}.weight": draw(i, 4, columns) for i in range(3)}
    split |= {f"lora_up.{i}.weight": draw(i, rows // 3, 4) for i in range(3)} | {"alpha": torch.tensor(4.0)}
    write(model_folders, {"lora_unet_double_blocks_1_img_attn_qkv": split}, "")
    with pytest.raises(ValueError, match=r"lora_down\.0.*Use a file of another form"):
        apply(model)


@pytest.mark.parametrize("shape", [(3, 16, 8, 8), (47, 8, 8), (6, 24, 16, 16), (48, 8, 7)])
def test_blocks_that_do_not_fit_are_named_not_logged(
    shape: tuple[int, ...], model: Any, model_folders: Path
) -> None:
    write(model_folders, {QKV: {"oft_blocks": torch.zeros(shape)}, LATER: whole(LATER)})
    with pytest.raises(ValueError, match="it.safetensors"):
        stacked = apply(model)
        assert "1 of 2 modules applied" in stacked.report
        raise ValueError(stacked.report)
