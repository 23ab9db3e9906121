"""FLUX.2 [klein]'s transformer as a pure function of a state dict, for training.

Same names and shapes as `comfy/ldm/flux/model.py` (ComfyUI 0.30), whose blocks update tensors in place and
so cannot be trained through; `tests/model/test_nano_forward.py` proves both forwards equal. Only what klein
uses is here: global modulation, SwiGLU, no biases, no guidance embedding, reference method "index".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

AXES = (32, 32, 32, 32)
THETA = 2000
REFERENCE_INDEX_STEP = 10


@dataclass(frozen=True)
class Shape:
    """Sizes of the net; hidden is a multiple of 128 (head width 128)."""

    hidden: int = 128
    double: int = 2
    single: int = 6
    context: int = 192
    channels: int = 128


def parameter_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    h = shape.hidden
    shapes: dict[str, tuple[int, ...]] = {
        "img_in.weight": (h, shape.channels),
        "txt_in.weight": (h, shape.context),
        "time_in.in_layer.weight": (h, 256),
        "time_in.out_layer.weight": (h, h),
        "double_stream_modulation_img.lin.weight": (6 * h, h),
        "double_stream_modulation_txt.lin.weight": (6 * h, h),
        "single_stream_modulation.lin.weight": (3 * h, h),
        "final_layer.linear.weight": (shape.channels, h),
        "final_layer.adaLN_modulation.1.weight": (2 * h, h),
    }
    for i in range(shape.double):
        for side in ("img", "txt"):
            prefix = f"double_blocks.{i}.{side}_"
            shapes |= {
                prefix + "attn.qkv.weight": (3 * h, h),
                prefix + "attn.norm.query_norm.scale": (128,),
                prefix + "attn.norm.key_norm.scale": (128,),
                prefix + "attn.proj.weight": (h, h),
                prefix + "mlp.0.weight": (6 * h, h),
                prefix + "mlp.2.weight": (h, 3 * h),
            }
    for i in range(shape.single):
        prefix = f"single_blocks.{i}."
        shapes |= {
            prefix + "linear1.weight": (9 * h, h),
            prefix + "linear2.weight": (h, 4 * h),
            prefix + "norm.query_norm.scale": (128,),
            prefix + "norm.key_norm.scale": (128,),
        }
    return shapes


def initial_state(shape: Shape, seed: int) -> dict[str, Tensor]:
    """Scaled normal weights; modulation and output start at zero (adaLN-Zero, Peebles & Xie 2023)."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, size in parameter_shapes(shape).items():
        if len(size) == 1:
            state[name] = torch.ones(size)
        elif "modulation" in name or name == "final_layer.linear.weight":
            state[name] = torch.zeros(size)
        else:
            state[name] = torch.randn(size, generator=generator) * size[1] ** -0.5
    return state


def timestep_embedding(t: Tensor, dim: int = 256) -> Tensor:
    """Sigma in 0..1 `[B]` -> `[B, dim]`, cosines first, time factor 1000."""
    half = dim // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float32, device=t.device) * (-9.210340371976184 / half))
    angle = (1000.0 * t.float())[:, None] * rates
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


def position_ids(text: int, images: list[tuple[int, int]]) -> Tensor:
    """`[L, 4]`: text (0, 0, 0, l), then each image (10k, row, column, 0), the picture itself being k = 0."""
    parts = [torch.zeros(text, 4)]
    parts[0][:, 3] = torch.arange(text)
    for k, (rows, columns) in enumerate(images):
        ids = torch.zeros(rows, columns, 4)
        ids[..., 0] = REFERENCE_INDEX_STEP * k
        ids[..., 1] = torch.arange(rows)[:, None]
        ids[..., 2] = torch.arange(columns)
        parts.append(ids.view(-1, 4))
    return torch.cat(parts)


def rotary(ids: Tensor) -> Tensor:
    """Complex rotation `[L, 64]` of every position's four axes: one number for each pair of head channels."""
    angles = []
    for axis, width in enumerate(AXES):
        omega = 1.0 / THETA ** torch.linspace(0, (width - 2) / width, width // 2, dtype=torch.float64)
        angles.append(ids[:, axis, None].double() * omega)
    angle = torch.cat(angles, dim=-1)
    return torch.complex(angle.cos().float(), angle.sin().float())


def _rotate(x: Tensor, rotation: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rotation).flatten(-2)


def _heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (-1, 128)).transpose(1, 2)


def _query_key_value(qkv: Tensor, state: dict[str, Tensor], prefix: str) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = (_heads(part) for part in qkv.chunk(3, dim=-1))
    query = functional.rms_norm(query, (128,), state[prefix + "query_norm.scale"], 1e-6)
    key = functional.rms_norm(key, (128,), state[prefix + "key_norm.scale"], 1e-6)
    return query, key, value


def _attend(query: Tensor, key: Tensor, value: Tensor, positions: Tensor) -> Tensor:
    query, key = _rotate(query, positions), _rotate(key, positions)
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def _gated(x: Tensor) -> Tensor:
    gate, value = x.chunk(2, dim=-1)
    return functional.silu(gate) * value


def transformer(
    state: dict[str, Tensor],
    shape: Shape,
    image: Tensor,
    text: Tensor,
    sigma: Tensor,
    positions: Tensor,
    picture_tokens: int,
) -> Tensor:
    """Velocity of the picture's tokens.

    image `[B, I, C]` (picture tokens, then reference tokens), text `[B, T, context]`, sigma `[B]`, positions
    of text + image from `rotary` -> `[B, picture_tokens, C]`. C may be fewer than 128 when `img_in` and the
    final layer were cut alike.
    """
    linear = functional.linear
    img = linear(image, state["img_in.weight"])
    txt = linear(text, state["txt_in.weight"])
    vec = linear(timestep_embedding(sigma), state["time_in.in_layer.weight"])
    vec = functional.silu(linear(functional.silu(vec), state["time_in.out_layer.weight"]))
    mods = {
        side: linear(vec, state[f"double_stream_modulation_{side}.lin.weight"])[:, None].chunk(6, dim=-1)
        for side in ("img", "txt")
    }
    length = txt.shape[1]
    for i in range(shape.double):
        qkv = []
        for side, x in (("txt", txt), ("img", img)):
            prefix = f"double_blocks.{i}.{side}_attn."
            shift, scale = mods[side][:2]
            qkv.append(
                _query_key_value(
                    linear(_modulate(x, shift, scale), state[prefix + "qkv.weight"]), state, prefix + "norm."
                )
            )
        attended = _attend(*(torch.cat(pair, dim=2) for pair in zip(*qkv, strict=True)), positions)
        streams = []
        for side, x, part in (("txt", txt, attended[:, :length]), ("img", img, attended[:, length:])):
            prefix = f"double_blocks.{i}.{side}_"
            gate1, shift2, scale2, gate2 = mods[side][2:]
            x = x + gate1 * linear(part, state[prefix + "attn.proj.weight"])
            hidden = linear(_modulate(x, shift2, scale2), state[prefix + "mlp.0.weight"])
            streams.append(x + gate2 * linear(_gated(hidden), state[prefix + "mlp.2.weight"]))
        txt, img = streams
    x = torch.cat((txt, img), dim=1)
    shift, scale, gate = linear(vec, state["single_stream_modulation.lin.weight"])[:, None].chunk(3, dim=-1)
    for i in range(shape.single):
        prefix = f"single_blocks.{i}."
        hidden = linear(_modulate(x, shift, scale), state[prefix + "linear1.weight"])
        qkv, mlp = hidden.split((3 * shape.hidden, 6 * shape.hidden), dim=-1)
        attended = _attend(*_query_key_value(qkv, state, prefix + "norm."), positions)
        x = x + gate * linear(torch.cat((attended, _gated(mlp)), dim=-1), state[prefix + "linear2.weight"])
    x = x[:, length : length + picture_tokens]
    shift, scale = linear(vec, state["final_layer.adaLN_modulation.1.weight"])[:, None].chunk(2, dim=-1)
    return linear(_modulate(x, shift, scale), state["final_layer.linear.weight"])
