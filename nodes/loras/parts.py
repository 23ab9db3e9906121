"""The arithmetic of one change to one weight: as a matrix to add, and as a path beside the layer.

A part is a low-rank product (LoRA), a Hadamard product of two of them (LoHa), a Kronecker product (LoKr) or a
whole difference, each with its scale and, for DoRA, a magnitude. Formulas: LoRA arXiv:2106.09685, LoHa
arXiv:2108.06098, LoKr arXiv:2309.14859, DoRA arXiv:2402.09353. Parts of the kinds OFT, BOFT, GLoRA and SET
change a weight in ways that only ComfyUI's adapters know: whoever calls brings them along (`Adapt`). Knows
torch, not ComfyUI.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor

LORA, LOHA, LOKR, DIFF = "lora", "loha", "lokr", "diff"
OFT, BOFT, GLORA, SET = "oft", "boft", "glora", "set"
ADAPTED = (OFT, BOFT, GLORA, SET)


class Part(NamedTuple):
    """A change of `[rows, columns]`, or `[width]` for a norm.

    scale: alpha / rank. weight: the row's. magnitude: DoRA's, `[rows]`, `[rows, 1]` or `[1, columns]`.
    tensors: lora (up `[rows, r]`, down `[r, columns]`); loha (w1_a, w1_b, w2_a, w2_b); lokr (w1, w2), each a
    matrix or a pair whose product it is; diff (difference,); the ADAPTED kinds what ComfyUI's adapter of that
    name takes, set (whole weight,). A plain tuple of these fields is as good: ComfyUI rebuilds tuples when it
    moves weights.
    """

    kind: str
    scale: float
    weight: float
    magnitude: Tensor | None
    tensors: tuple[Any, ...]

    @property
    def bound(self) -> bool:
        """Whether the change depends on the weight it acts on."""
        return self.magnitude is not None or self.kind in ADAPTED


Adapt = Callable[[Tensor, Part], Tensor]
"""The change that a part of an ADAPTED kind makes of a weight, the row's weight in it."""


def refuse_adapted(weight: Tensor, part: Part) -> Tensor:
    """For callers without ComfyUI's adapters."""
    raise ValueError(f"A part of the kind {part.kind} needs ComfyUI's adapters.")


def compute_delta(part: Part, like: Tensor) -> Tensor:
    """The change at weight 1 without its magnitude, in dtype, device and shape of `like`."""

    def matrix(value: Any) -> Tensor:
        return _matrix(value, like.dtype, like.device)

    if part.kind == DIFF:
        return part.tensors[0].to(like).reshape(like.shape) * part.scale
    if part.kind == LORA:
        delta = matrix(part.tensors[0]) @ matrix(part.tensors[1])
    elif part.kind == LOHA:
        w1_a, w1_b, w2_a, w2_b = map(matrix, part.tensors)
        delta = (w1_a @ w1_b) * (w2_a @ w2_b)
    else:
        delta = torch.kron(*map(matrix, part.tensors))
    return (delta if part.scale == 1 else delta.mul_(part.scale)).reshape(like.shape)


def _matrix(value: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A stored matrix, or the product of a stored pair."""
    if isinstance(value, tuple):
        return _matrix(value[0], dtype, device) @ _matrix(value[1], dtype, device)
    return value.to(device=device, dtype=dtype).flatten(start_dim=1)


def add_parts(weight: Tensor, parts: Iterable[Part], adapt: Adapt = refuse_adapted) -> Tensor:
    """Add every part to `weight` (in place, in its dtype) and return it.

    Plain low-rank parts become one product over their joined ranks: the weight is written once, whatever the
    number of LoRAs. Changes that depend on the weight (DoRA's norms, rotations) are made of the weight as it
    came, so the order of parts does not matter.
    """
    parts = [Part(*part) for part in parts]
    plain = [part for part in parts if part.kind == LORA and not part.bound]
    others = [part for part in parts if not part.bound and part.kind != LORA]
    changes = [_bound_change(weight, part, adapt) for part in parts if part.bound]
    if plain:
        up, down = join_ranks(plain, weight)
        weight.reshape(weight.shape[0], -1).addmm_(up, down)
    for part in others:
        weight.add_(compute_delta(part, weight), alpha=part.weight)
    for change in changes:
        weight.add_(change)
    return weight


def _bound_change(weight: Tensor, part: Part, adapt: Adapt) -> Tensor:
    """What `part` at its weight adds to `weight`."""
    if part.kind in ADAPTED:
        return adapt(weight, part)
    return part.weight * _decomposed_change(weight, part)


def join_ranks(parts: Sequence[Part], like: Tensor) -> tuple[Tensor, Tensor]:
    """(up `[rows, R]`, down `[R, columns]`) of LoRA parts, weights and scales in them, R the sum of ranks."""
    ups, downs = [], []
    for part in parts:
        up, down = (t.to(device=like.device, dtype=like.dtype).flatten(start_dim=1) for t in part.tensors)
        factor = part.scale * part.weight
        # The factor goes where fewer numbers are.
        if up.shape[0] <= down.shape[1]:
            up = up * factor
        else:
            down = down * factor
        ups.append(up)
        downs.append(down)
    return (ups[0], downs[0]) if len(parts) == 1 else (torch.cat(ups, dim=1), torch.cat(downs, dim=0))


def _decomposed_change(weight: Tensor, part: Part) -> Tensor:
    """DoRA: magnitude * (W + D) / |W + D| - W, the norm along columns for each row, or the other way."""
    if part.magnitude is None:
        raise ValueError("A part without a magnitude is no DoRA.")
    merged = weight + compute_delta(part, weight)
    magnitude, axis = _shaped_magnitude(part.magnitude.to(weight), weight)
    norm = torch.linalg.vector_norm(merged, dim=axis, keepdim=True)
    factor = magnitude / norm.clamp_min(torch.finfo(weight.dtype).tiny)
    return merged.mul_(factor).sub_(weight)


def _shaped_magnitude(magnitude: Tensor, weight: Tensor) -> tuple[Tensor, int]:
    """(magnitude ready to multiply, axis its norm runs along)."""
    per_column = magnitude.dim() == 2 and magnitude.shape[0] == 1 and weight.shape[0] != 1
    return (magnitude.reshape(1, -1), 0) if per_column else (magnitude.reshape(-1, 1), 1)


class SidePath:
    """The same change as something added to a layer's output: exact whatever the layer's weight is stored as.

    Made for one layer, device and dtype. start, length: the rows of the output it concerns (length 0: all).
    shape: (rows, columns) of that part of the layer. weight_of: returns the layer's own weight
    `[all rows, columns]` in float32, asked only for changes that depend on it.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        shape: tuple[int, int],
        start: int,
        length: int,
        device: torch.device,
        dtype: torch.dtype,
        weight_of: Callable[[], Tensor] | None = None,
        adapt: Adapt = refuse_adapted,
    ) -> None:
        self.start, self.length = start, length
        like = torch.empty(0, device=device, dtype=dtype)
        plain = [part for part in parts if part.kind == LORA and not part.bound]
        self._low_rank: tuple[Tensor, Tensor, Tensor] | None = None
        if plain:
            pairs = [tuple(t.to(like).flatten(start_dim=1) for t in part.tensors) for part in plain]
            factors = [
                torch.full((len(down),), part.scale * part.weight)
                for part, (_, down) in zip(plain, pairs, strict=True)
            ]
            # The factors act between the two products: the file's numbers stay as they are, also in bf16.
            self._low_rank = (
                torch.cat([down for _, down in pairs]),
                torch.cat(factors).to(like),
                torch.cat([up for up, _ in pairs], dim=1).t(),
            )
        self._kronecker = [
            (
                *(_matrix(side, torch.float32, device).to(like) for side in part.tensors),
                part.scale * part.weight,
            )
            for part in parts
            if part.kind == LOKR and not part.bound
        ]
        self._dense: Tensor | None = None
        rest = [part for part in parts if part.kind not in (LORA, LOKR) or part.bound]
        if rest:
            self._dense = self._sum_dense(rest, shape, device, weight_of, adapt).to(like).t()

    def _sum_dense(
        self,
        parts: Sequence[Part],
        shape: tuple[int, int],
        device: torch.device,
        weight_of: Callable[[], Tensor] | None,
        adapt: Adapt,
    ) -> Tensor:
        total = torch.zeros(shape, device=device)
        own: Tensor | None = None
        for part in parts:
            if not part.bound:
                total.add_(compute_delta(part, total), alpha=part.weight)
                continue
            if own is None:
                if weight_of is None:
                    raise ValueError("A change that depends on the layer's weight needs weight_of.")
                own = weight_of().to(total)
                own = own[self.start : self.start + self.length] if self.length else own
            total.add_(_bound_change(own, part, adapt))
        return total

    def add_to(self, x: Tensor, out: Tensor) -> None:
        """Add the change of input `x` `[..., columns]` to `out` `[..., all rows]`, in place."""
        rows = out.reshape(-1, out.shape[-1]) if out.is_contiguous() else None
        target = out if rows is None else rows
        if self.length:
            target = target[..., self.start : self.start + self.length]
        x = x.reshape(-1, x.shape[-1]).to(target.dtype) if rows is not None else x.to(target.dtype)
        if self._low_rank is not None:
            down, factors, up = self._low_rank
            narrow = functional.linear(x, down) * factors
            self._accumulate(target, narrow, up)
        for first, second, factor in self._kronecker:
            # (first kron second) x, without ever making the product: it is as large as the layer.
            blocks = x.reshape(*x.shape[:-1], first.shape[1], second.shape[1])
            target += (factor * (first @ (blocks @ second.t()))).flatten(start_dim=-2)
        if self._dense is not None:
            self._accumulate(target, x, self._dense)

    @staticmethod
    def _accumulate(target: Tensor, left: Tensor, right: Tensor) -> None:
        if target.dim() == 2:
            target.addmm_(left, right)  # adds before rounding, as one layer would
        else:
            target += left @ right
