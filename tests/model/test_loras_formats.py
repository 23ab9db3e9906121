"""Every trainer's format, number for number against W + weight * alpha / rank * B A computed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from kleinod.nodes.base.values import LoraRow, Loras
from kleinod.nodes.loras.engine import apply_stack
from kleinod.nodes.loras.request import StackRequest
from safetensors.torch import save_file
from torch import Tensor

from tests.model.lora_files import (
    ALPHA,
    FORMATS,
    RANK,
    coarse,
    coarse_state,
    draw,
    expected_alpha,
    linear_weights,
    load_coarse_model,
    write_lora,
)

STATE = coarse_state()


@pytest.fixture(scope="module")
def model() -> object:
    return load_coarse_model()


def apply(model: object, *rows: LoraRow, **options: object) -> object:
    return apply_stack(model, StackRequest(Loras(rows), **options))


def patched(model: object, weight: str) -> Tensor:
    return model.patch_weight_to_device(f"diffusion_model.{weight}.weight", return_weight=True)


def compare_all(stacked: object, change: dict[str, Tensor], factor: float) -> None:
    for weight, delta in change.items():
        assert delta.abs().max() > 0
        assert torch.equal(patched(stacked.model, weight), STATE[f"{weight}.weight"] + factor * delta), weight


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_acts_fully(name: str, model: object, model_folders: Path) -> None:
    form = FORMATS[name]
    deltas = write_lora(model_folders / "loras" / "it.safetensors", form)
    stacked = apply(model, LoraRow("it.safetensors", weight=0.75))
    compare_all(stacked, deltas, 0.75 * expected_alpha(form) / RANK)
    modules = sum(len(form.names(weight)) for weight in deltas)
    assert f"{modules} of {modules} modules applied" in stacked.report
    assert f"rank {RANK}" in stacked.report
    assert ("alpha 2" in stacked.report) == (form.alpha != "none")
    assert "Not used" not in stacked.report


@pytest.mark.parametrize("weight", [-1.5, 3.5])
def test_weights_below_zero_and_above_one(weight: float, model: object, model_folders: Path) -> None:
    deltas = write_lora(model_folders / "loras" / "it.safetensors", FORMATS["kohya"])
    compare_all(apply(model, LoraRow("it", weight)), deltas, weight * ALPHA / RANK)


def one_module(folder: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    save_file(tensors, folder / "loras" / "it.safetensors", metadata)


QKV = "double_blocks.1.img_attn.qkv"
ROWS, COLUMNS = linear_weights()[QKV]


def test_loha(model: object, model_folders: Path) -> None:
    w1_a, w2_a = draw(1, ROWS, RANK, step=0.5, most=1), draw(2, ROWS, RANK, step=0.5, most=1)
    w1_b, w2_b = draw(3, RANK, COLUMNS, step=0.5, most=1), draw(4, RANK, COLUMNS, step=0.5, most=1)
    name = "lycoris_double_blocks_1_img_attn_qkv"
    one_module(model_folders, {
        f"{name}.hada_w1_a": w1_a, f"{name}.hada_w1_b": w1_b, f"{name}.hada_w2_a": w2_a,
        f"{name}.hada_w2_b": w2_b, f"{name}.alpha": torch.tensor(ALPHA),
    })  # fmt: skip
    stacked = apply(model, LoraRow("it", 0.5))
    compare_all(stacked, {QKV: (w1_a @ w1_b) * (w2_a @ w2_b)}, 0.5 * ALPHA / RANK)
    assert "LoHa" in stacked.report


@pytest.mark.parametrize("first", ["whole", "product"])
@pytest.mark.parametrize("second", ["whole", "product"])
def test_lokr(first: str, second: str, model: object, model_folders: Path) -> None:
    """Whole matrices ignore alpha, as LyCORIS does; products are scaled by alpha / rank."""
    name, tensors, sides = "lycoris_transformer_blocks_1_ff_linear_in", {}, []
    for key, kind, (rows, columns), seed in (
        ("lokr_w1", first, (4, 4), 1),
        ("lokr_w2", second, (192, 32), 2),
    ):
        if kind == "whole":
            tensors[f"{name}.{key}"] = draw(seed, rows, columns)
            sides.append(tensors[f"{name}.{key}"])
        else:
            a, b = draw(seed, rows, 2), draw(seed + 5, 2, columns)
            tensors |= {f"{name}.{key}_a": a, f"{name}.{key}_b": b}
            sides.append(a @ b)
    tensors[f"{name}.alpha"] = torch.tensor(4.0)
    one_module(model_folders, tensors)
    scale = 1.0 if first == second == "whole" else 4.0 / 2
    stacked = apply(model, LoraRow("it", 0.5))
    compare_all(stacked, {"double_blocks.1.img_mlp.0": torch.kron(*sides)}, 0.5 * scale)


@pytest.mark.parametrize(
    "key", ["lora_magnitude_vector", "lora_magnitude_vector.weight", "dora_scale", "columns"]
)
def test_dora_magnitudes(key: str, model: object, model_folders: Path) -> None:
    """magnitude * (W + D) / |W + D|, blended with W by the row's weight; the norm is that of the sum."""
    up, down = draw(1, ROWS, RANK), draw(2, RANK, COLUMNS)
    merged = STATE[f"{QKV}.weight"].double() + (ALPHA / RANK * up @ down).double()
    name = f"diffusion_model.{QKV}"
    if key == "columns":
        magnitude = 1 + draw(3, 1, COLUMNS).abs()
        key, norm = "dora_scale", merged.norm(dim=0, keepdim=True)
    else:
        magnitude = 1 + draw(3, ROWS).abs()
        norm = merged.norm(dim=1, keepdim=True)
    tensors = {
        f"{name}.lora_A.weight": down,
        f"{name}.lora_B.weight": up,
        f"{name}.alpha": torch.tensor(ALPHA),
    }
    stored = magnitude.reshape(-1, 1) if key == "dora_scale" and magnitude.dim() == 1 else magnitude
    one_module(model_folders, tensors | {f"{name}.{key}": stored})
    stacked = apply(model, LoraRow("it", 0.75))
    shaped = magnitude.double() if magnitude.dim() == 2 else magnitude.double().reshape(-1, 1)
    wanted = STATE[f"{QKV}.weight"] + 0.75 * (shaped * merged / norm - STATE[f"{QKV}.weight"])
    assert (patched(stacked.model, QKV).double() - wanted).abs().max() < 2e-6
    assert "LoRA with DoRA" in stacked.report


def test_dora_on_rows_of_a_fused_weight(model: object, model_folders: Path) -> None:
    """diffusers names: the norm is that of the projection's own rows."""
    rows = COLUMNS
    up, down, magnitude = draw(1, rows, RANK), draw(2, RANK, COLUMNS), 1 + draw(3, rows).abs()
    name = "transformer.transformer_blocks.1.attn.to_k"
    one_module(model_folders, {
        f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up,
        f"{name}.lora_magnitude_vector": magnitude,
    })  # fmt: skip
    weight = patched(apply(model, LoraRow("it")).model, QKV)
    original = STATE[f"{QKV}.weight"]
    merged = original[rows : 2 * rows].double() + (up @ down).double()
    wanted = magnitude.double()[:, None] * merged / merged.norm(dim=1, keepdim=True)
    assert (weight[rows : 2 * rows].double() - wanted).abs().max() < 2e-6
    assert torch.equal(weight[:rows], original[:rows])
    assert torch.equal(weight[2 * rows :], original[2 * rows :])


@pytest.mark.parametrize(
    ("metadata", "scale"),
    [
        ({"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 8})}, 2.0),
        ({"lora_adapter_metadata": json.dumps({"lora_alpha": 8, "use_rslora": True})}, 4.0),
        (
            {"lora_adapter_metadata": json.dumps({"lora_alpha": 8, "alpha_pattern": {"img_attn.qkv": 1}})},
            0.25,
        ),
        ({"lora_adapter_metadata": "{not json"}, 1.0),
        ({"lora_alpha": "8"}, 2.0),
        ({}, 1.0),
    ],
)
def test_alpha_of_the_metadata(
    metadata: dict[str, str], scale: float, model: object, model_folders: Path
) -> None:
    up, down = draw(1, ROWS, RANK), draw(2, RANK, COLUMNS)
    name = f"base_model.model.{QKV}"
    one_module(model_folders, {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, metadata)
    stacked = apply(model, LoraRow("it"))
    compare_all(stacked, {QKV: up @ down}, scale)
    assert ("from the metadata" in stacked.report) == (scale != 1)


def test_kohya_alpha_only_in_the_metadata(model: object, model_folders: Path) -> None:
    up, down = draw(1, ROWS, RANK), draw(2, RANK, COLUMNS)
    name = "lora_unet_double_blocks_1_img_attn_qkv"
    one_module(
        model_folders,
        {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up},
        {"ss_network_alpha": "1", "ss_network_dim": "4"},
    )
    compare_all(apply(model, LoraRow("it")), {QKV: up @ down}, 0.25)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_files_in_smaller_types(dtype: torch.dtype, model: object, model_folders: Path) -> None:
    up, down = draw(1, ROWS, RANK).to(dtype), draw(2, RANK, COLUMNS).to(dtype)
    one_module(model_folders, {f"{QKV}.lora_A.weight": down, f"{QKV}.lora_B.weight": up})
    compare_all(apply(model, LoraRow("it")), {QKV: up.float() @ down.float()}, 1.0)


def test_whole_differences_of_weights_and_norms(model: object, model_folders: Path) -> None:
    change, norm = draw(1, ROWS, COLUMNS), draw(2, 128)
    one_module(model_folders, {
        f"diffusion_model.{QKV}.diff": change,
        "diffusion_model.double_blocks.1.img_attn.norm.query_norm.diff": norm,
    })  # fmt: skip
    stacked = apply(model, LoraRow("it", 0.5))
    compare_all(stacked, {QKV: change}, 0.5)
    names = [key for key in stacked.model.patches if "double_blocks.1.img_attn.norm.query_norm" in key]
    assert len(names) == 1
    assert torch.equal(stacked.model.patch_weight_to_device(names[0], return_weight=True), 1 + 0.5 * norm)
    assert "2 of 2 modules applied" in stacked.report


def test_a_stack_is_the_sum_of_its_rows_and_chains_add_up(model: object, model_folders: Path) -> None:
    folder = model_folders / "loras"
    first = write_lora(folder / "a.safetensors", FORMATS["kohya"], seed=1)
    second = write_lora(folder / "b.safetensors", FORMATS["diffusers with prefix"], seed=2)
    third = write_lora(folder / "c.safetensors", FORMATS["ai-toolkit (BFL names)"], seed=3)
    together = apply(apply(model, LoraRow("a", 0.5), LoraRow("b", -1.0)).model, LoraRow("c", 0.25))
    for weight in first:
        wanted = (
            STATE[f"{weight}.weight"] + 0.25 * first[weight] - 0.5 * second[weight] + 0.25 * third[weight]
        )
        assert torch.equal(patched(together.model, weight), wanted)


def test_the_model_that_came_stays_as_it_was(model: object, model_folders: Path) -> None:
    write_lora(model_folders / "loras" / "it.safetensors", FORMATS["kohya"])
    stacked = apply(model, LoraRow("it"))
    assert stacked.model is not model
    assert model.patches == {} and model.wrappers == {}
    assert torch.equal(patched(model, QKV), STATE[f"{QKV}.weight"])


def test_coarse_numbers_are_exact() -> None:
    """What the equality above rests on."""
    state = STATE[f"{QKV}.weight"]
    assert torch.equal(coarse(state, 2**-8), state)
    assert (
        (draw(1, 64, RANK) @ draw(2, RANK, 64))
        .double()
        .equal(draw(1, 64, RANK).double() @ draw(2, RANK, 64).double())
    )
