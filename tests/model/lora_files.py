"""LoRA files as the trainers write them: one change of known size for every weight of the tiny Klein.

All numbers are multiples of small powers of two, so float32 holds every sum and product exactly and tests may
ask for equality.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.model.tiny_klein import HIDDEN, dit_shapes, make_dit_state

RANK = 4
ALPHA = 2.0


@dataclass(frozen=True)
class Piece:
    """A module of a file: `name` there, rows `start` to `start + length` of `weight` (length 0: all) here."""

    name: str
    weight: str
    start: int = 0
    length: int = 0
    swapped: bool = False


def linear_weights() -> dict[str, tuple[int, int]]:
    """BFL's names without `.weight` -> (rows, columns), of everything a LoRA can act on."""
    return {
        key.removesuffix(".weight"): shape for key, shape in dit_shapes().items() if key.endswith(".weight")
    }


def coarse(tensor: Tensor, step: float) -> Tensor:
    return (tensor / step).round() * step


def coarse_state() -> dict[str, Tensor]:
    return {key: coarse(value, 2**-8) for key, value in make_dit_state().items()}


def load_coarse_model(dtype: torch.dtype = torch.float32) -> object:
    """The tiny Klein on numbers that leave room for exact sums."""
    import comfy.sd

    return comfy.sd.load_diffusion_model_state_dict({k: v.to(dtype) for k, v in coarse_state().items()})


def draw(seed: int, *shape: int, step: float = 2**-3, most: int = 4) -> Tensor:
    """Whole multiples of `step`, between -most and most of them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-most, most + 1, shape, generator=generator).float() * step


# --- names


def bfl(weight: str) -> list[Piece]:
    return [Piece(weight, weight)]


_DIFFUSERS_DOUBLE = {
    "img_attn.proj": "attn.to_out.0", "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.linear_in", "img_mlp.2": "ff.linear_out",
    "txt_mlp.0": "ff_context.linear_in", "txt_mlp.2": "ff_context.linear_out",
}  # fmt: skip
_DIFFUSERS_GLOBAL = {
    "img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out",
    "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
}  # fmt: skip


def diffusers(weight: str) -> list[Piece]:
    """diffusers' Flux2Transformer2DModel: double blocks with query, key and value apart."""
    if weight in _DIFFUSERS_GLOBAL:
        return [Piece(_DIFFUSERS_GLOBAL[weight], weight)]
    if weight == "final_layer.adaLN_modulation.1":
        return [Piece("norm_out.linear", weight, swapped=True)]
    kind, index, rest = weight.split(".", 2)
    if kind == "single_blocks":
        name = {"linear1": "attn.to_qkv_mlp_proj", "linear2": "attn.to_out"}[rest]
        return [Piece(f"single_transformer_blocks.{index}.{name}", weight)]
    block = f"transformer_blocks.{index}"
    if rest.endswith("qkv"):
        names = (
            ("to_q", "to_k", "to_v") if rest.startswith("img") else ("add_q_proj", "add_k_proj", "add_v_proj")
        )
        return [
            Piece(f"{block}.attn.{name}", weight, part * HIDDEN, HIDDEN) for part, name in enumerate(names)
        ]
    return [Piece(f"{block}.{_DIFFUSERS_DOUBLE[rest]}", weight)]


def diffusers_split_single(weight: str) -> list[Piece]:
    """As FLUX.1's: also the single blocks' first layer in four, and their second called proj_out."""
    if weight.startswith("single_blocks."):
        _, index, rest = weight.split(".", 2)
        block = f"single_transformer_blocks.{index}"
        if rest == "linear2":
            return [Piece(f"{block}.proj_out", weight)]
        parts = [(f"attn.to_{letter}", i, 1) for i, letter in enumerate("qkv")] + [("proj_mlp", 3, 6)]
        return [Piece(f"{block}.{name}", weight, s * HIDDEN, n * HIDDEN) for name, s, n in parts]
    return diffusers(weight)


def diffusers_fused(weight: str) -> list[Piece]:
    """After `fuse_qkv_projections`."""
    pieces = diffusers(weight)
    if len(pieces) == 1:
        return pieces
    name = "to_qkv" if "to_q" in pieces[0].name else "to_added_qkv"
    return [Piece(f"{pieces[0].name.rpartition('.')[0]}.{name}", weight)]


def underscored(names: Callable[[str], list[Piece]]) -> Callable[[str], list[Piece]]:
    return lambda weight: [
        Piece(p.name.replace(".", "_"), p.weight, p.start, p.length, p.swapped) for p in names(weight)
    ]


def musubi_converted(weight: str) -> list[Piece]:
    """musubi-tuner's converter: dots between blocks, underscores within (its issue 905)."""
    parts = weight.split(".")
    if len(parts) > 3:
        return [Piece(".".join(parts[:2]) + "." + "_".join(parts[2:]), weight)]
    return [Piece(weight, weight)]


def xlabs(weight: str) -> list[Piece]:
    kind, _, rest = weight.partition(".")
    if kind not in ("double_blocks", "single_blocks"):
        return [Piece(weight, weight)]
    index, _, rest = rest.partition(".")
    names = {
        "img_attn.qkv": "processor.qkv_lora1", "txt_attn.qkv": "processor.qkv_lora2",
        "img_attn.proj": "processor.proj_lora1", "txt_attn.proj": "processor.proj_lora2",
        "linear2": "processor.proj_lora",
    }  # fmt: skip
    if rest == "linear1":
        return [Piece(f"{kind}.{index}.processor.qkv_lora", weight, 0, 3 * HIDDEN)]
    return [Piece(f"{kind}.{index}.{names.get(rest, rest)}", weight)]


# --- formats

KOHYA = ("lora_down.weight", "lora_up.weight")
PEFT = ("lora_A.weight", "lora_B.weight")


@dataclass(frozen=True)
class Format:
    """How a trainer writes: prefix + name + "." + ending. alpha: "tensor", "config" (metadata), or none."""

    prefix: str
    names: Callable[[str], list[Piece]]
    endings: tuple[str, str]
    alpha: str = "tensor"
    glue: str = "."


FORMATS: dict[str, Format] = {
    "ai-toolkit (BFL names)": Format("diffusion_model.", bfl, PEFT, "none"),
    "bare BFL": Format("", bfl, PEFT, "none"),
    "BFL under transformer": Format("transformer.", bfl, PEFT, "none"),
    "kohya": Format("lora_unet_", underscored(bfl), KOHYA),
    "kohya with diffusers names": Format("lora_unet_", underscored(diffusers), KOHYA),
    "diffusers with prefix": Format("transformer.", diffusers, PEFT, "config"),
    "diffusers bare": Format("", diffusers, PEFT, "none"),
    "diffusers, single blocks apart": Format("transformer.", diffusers_split_single, PEFT, "config"),
    "diffusers, fused projections": Format("transformer.", diffusers_fused, PEFT, "config"),
    "diffusion_model with diffusers names": Format("diffusion_model.", diffusers, PEFT, "none"),
    "DiffSynth": Format("", diffusers, ("lora_A.default.weight", "lora_B.default.weight"), "none"),
    "fal, PEFT with BFL names": Format("base_model.model.", bfl, PEFT, "config"),
    "PEFT with diffusers names": Format("base_model.model.", diffusers, PEFT, "config"),
    "OneTrainer": Format("lora_transformer_", underscored(diffusers), KOHYA),
    "OneTrainer with dots": Format("transformer.", diffusers, KOHYA),
    "SimpleTuner LyCORIS": Format("lycoris_", underscored(diffusers), KOHYA),
    "musubi": Format("lora_unet_", underscored(bfl), KOHYA),
    "musubi converted": Format("diffusion_model.", musubi_converted, PEFT, "none"),
    "letters of the prefix stripped": Format("lora_unet_", underscored(diffusers), KOHYA),
    "old diffusers attention processors": Format(
        "transformer.", diffusers, ("lora.down.weight", "lora.up.weight")
    ),
    "linear layer": Format(
        "", diffusers, ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"), "none"
    ),
    "XLabs": Format("", xlabs, ("down.weight", "up.weight"), "none"),
    "compiled, in a wrapper": Format("module._orig_mod.model.diffusion_model.", bfl, PEFT, "none"),
    "a named adapter": Format(
        "unet.", diffusers, ("lora_A.my_style.weight", "lora_B.my_style.weight"), "none"
    ),
    "no .weight at the end": Format("dit.", bfl, ("lora_A", "lora_B"), "none"),
    "MLX": Format("", diffusers, ("lora_a", "lora_b"), "none"),
    "unknown prefix": Format("my_trainer.net.", bfl, KOHYA),
}  # fmt: skip


def expected_alpha(form: Format) -> float:
    return RANK if form.alpha == "none" else ALPHA


def write_lora(
    path: Path, form: Format, seed: int = 0, weights: Mapping[str, tuple[int, int]] | None = None
) -> dict[str, Tensor]:
    """Write a LoRA of every weight; returns weight name -> B A of it (no alpha, no row weight), by hand."""
    tensors: dict[str, Tensor] = {}
    deltas: dict[str, Tensor] = {}
    for number, (weight, (rows, columns)) in enumerate((weights or linear_weights()).items()):
        deltas[weight] = torch.zeros(rows, columns)
        for part, piece in enumerate(form.names(weight)):
            length = piece.length or rows
            down = draw(seed + 97 * number + part, RANK, columns)
            up = draw(seed + 89 * number + part + 1, length, RANK)
            deltas[weight][piece.start : piece.start + length] = up @ down
            stored = torch.cat([up[rows // 2 :], up[: rows // 2]]) if piece.swapped else up
            module = f"{form.prefix}{piece.name}"
            if form is FORMATS["letters of the prefix stripped"]:
                module = module.replace("lora_unet_transformer", "sformer").replace("lora_unet_", "")
            if form.endings[0] == "lora_a":
                down, stored = down.t().contiguous(), stored.t().contiguous()
            tensors[f"{module}{form.glue}{form.endings[0]}"] = down
            tensors[f"{module}{form.glue}{form.endings[1]}"] = stored
            if form.alpha == "tensor":
                tensors[f"{module}.alpha"] = torch.tensor(ALPHA)
    metadata = {"format": "pt"}
    if form.alpha == "config":
        config = {"transformer.r": RANK, "transformer.lora_alpha": ALPHA}
        metadata["lora_adapter_metadata"] = json.dumps(config)
    save_file(tensors, path, metadata)
    return deltas
