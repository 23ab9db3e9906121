"""References that weigh more or less, put into a run through ComfyUI's own ControlNet interface.

What a conditioning carries reaches the model by fixed keys only. A ControlNet is one of them, is asked before
every call of the network by every sampler of ComfyUI, and is handed that call's `transformer_options`, where
attention may be replaced (`optimized_attention_override`). So weights travel with the prompt, whatever
samples it, and the MODEL stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..base import seams
from ..base.references import Reference, References
from .weights import Weight, first_step, fit_place, last_step, make_bias, weigh

ControlBase: Any = seams.find("comfy.controlnet:ControlBase") or object
attention_pytorch = seams.find("comfy.ldm.modules.attention:attention_pytorch")

OVERRIDE = "optimized_attention_override"
TOKENS = "reference_image_num_tokens"
# These take no bias, or read it as a plain mask.
_WITHOUT_BIAS = ("sage", "flash")
_BIAS_NUMBERS = 2**24
"""Numbers of the bias made at once: 32 MiB in 16 bits. More queries are answered in parts."""


def control_references(references: References, before: int = 0, boxes: Sequence[Any] = ()) -> Any:
    """What a conditioning carries as `control` so that these references weigh what they should; None where
    all count alike.

    before: references that stand in front of them. boxes: where the picture is painted crop by crop, each
    crop's (left, top, right, bottom) as shares of the whole picture.
    """
    if all(item.plain for item in references.items):
        return None
    seams.require(seams.REFERENCE_WEIGHTS)
    items = references.items
    if boxes:
        items = tuple(replace(item, place=_cut(item.place, boxes)) for item in items)
    return ReferenceControl(items, before)


def _cut(place: Tensor | None, boxes: Sequence[Any]) -> Tensor | None:
    """A mask `[1, H, W]` over the whole picture as one for each crop, `[N, 64, 64]`."""
    if place is None:
        return None
    height, width = place.shape[-2:]
    parts = []
    for left, top, right, bottom in boxes:
        rows = slice(int(top * height), max(int(top * height) + 1, round(bottom * height)))
        columns = slice(int(left * width), max(int(left * width) + 1, round(right * width)))
        parts.append(fit_place(place[:, rows, columns], 64, 64).reshape(64, 64))
    return torch.stack(parts)


class ReferenceControl(ControlBase):
    """A ControlNet without a network: it weighs references in attention and adds nothing to the picture.

    items: the references, in the order of the last latents of the conditioning; `before` of them stand in
    front and count as they are.
    """

    title = "weights of references"
    """What takes it off a conditioning calls it."""

    def __init__(self, items: tuple[Reference, ...], before: int) -> None:
        super().__init__()
        self.items, self.before = items, before

    def copy(self) -> ReferenceControl:
        """As ComfyUI copies a ControlNet."""
        copied = ReferenceControl(self.items, self.before)
        self.copy_to(copied)
        return copied

    def deepclone_multigpu(self, load_device: Any, autoregister: bool = False) -> ReferenceControl:
        """A twin for another GPU; there is nothing to load there."""
        copied = self.copy()
        if autoregister:
            self.multigpu_clones[load_device] = copied
        return copied

    def pre_run(self, model: Any, percent_to_timestep_function: Callable[[float], float]) -> None:
        """ComfyUI calls it before the first step."""
        super().pre_run(model, percent_to_timestep_function)
        # Of all items, for whoever watches what changes within a run; exact from the first call on.
        shares = [share for item in self.items for share in (item.start, item.end)]
        self.timestep_range = tuple(float(percent_to_timestep_function(share)) for share in shares)

    def get_control(
        self, x_noisy: Tensor, t: Tensor, cond: dict[str, Any], batched_number: int, transformer_options: Any
    ) -> Any:
        """ComfyUI calls it before every call of the network. What it gives is the next ControlNet's."""
        sigma = float(transformer_options.get("sigmas", t).flatten()[0])
        sigmas = transformer_options.get("sample_sigmas")
        levels = [sigma, 0.0] if sigmas is None else sigmas.tolist()  # a device is waited for once
        self._note_edges(levels)
        steps = len(levels) - 1
        step = min(max(sum(level >= sigma * (1 - 1e-6) for level in levels[:-1]) - 1, 0), steps - 1)
        height, width = x_noisy.shape[-2:]
        weights = [Weight(1.0)] * self.before + [
            weigh(item, step, steps, self._place(item, height, width, len(x_noisy))) for item in self.items
        ]
        if not all(weight.plain for weight in weights):
            earlier = transformer_options.get(OVERRIDE)
            transformer_options[OVERRIDE] = _WeighingAttention(weights, height * width, earlier)
        if self.previous_controlnet is not None:
            return self.previous_controlnet.get_control(x_noisy, t, cond, batched_number, transformer_options)
        return None

    def _place(self, item: Reference, height: int, width: int, rows: int) -> Tensor | None:
        if item.place is None:
            return None
        place = fit_place(item.place, height, width)
        return place if len(place) == 1 else place.repeat(-(-rows // len(place)), 1)[:rows]

    def _note_edges(self, levels: Sequence[float]) -> None:
        """Half way between the steps at which an item starts or stops."""
        steps = len(levels) - 1
        edges = [edge(item, steps) for item in self.items for edge in (first_step, last_step)]
        self.timestep_range = tuple(
            (levels[edge - 1] + levels[edge]) / 2 if 0 < edge < steps else (levels[0] + 1 if not edge else -1)
            for edge in edges
        )


class _WeighingAttention:
    """Attention of one call of the network, with a bias on the keys of references."""

    def __init__(self, weights: Sequence[Weight], cells: int, earlier: Callable[..., Tensor] | None) -> None:
        self._weights, self._cells, self._earlier = weights, cells, earlier
        self._bias: dict[tuple[int, int, int, int], Tensor] = {}

    def __call__(
        self, attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, heads: int, *rest: Any,
        mask: Tensor | None = None, transformer_options: dict[str, Any] | None = None, **options: Any,
    ) -> Tensor:  # fmt: skip
        tokens = (transformer_options or {}).get(TOKENS) or []
        if len(tokens) != len(self._weights) or not options.get("skip_reshape"):
            # Another network (a real ControlNet beside it), or a call without references.
            given = {"mask": mask, "transformer_options": transformer_options, **options}
            if self._earlier is not None:
                return self._earlier(attend, q, k, v, heads, *rest, **given)
            return attend(q, k, v, heads, *rest, **given)
        if any(word in getattr(attend, "__name__", "") for word in _WITHOUT_BIAS):
            attend = attention_pytorch
        queries, keys = q.shape[2], k.shape[2]
        images = self._cells + sum(tokens)
        text = keys - images
        placed = any(weight.place is not None for weight in self._weights)
        part = max(1, _BIAS_NUMBERS // (keys * len(q))) if placed else queries
        done = []
        for start in range(0, queries, part):
            rows = slice(start, min(start + part, queries))
            bias = self._make_bias(tokens, keys, rows, text, q, keep=part >= queries)
            if mask is not None:
                bias = bias + _as_bias(mask, rows, q)
            done.append(
                attend(
                    q[:, :, rows], k, v, heads, *rest, mask=bias, transformer_options=transformer_options,
                    **options,
                )
            )  # fmt: skip
        across = 2 if options.get("skip_output_reshape") else 1
        return done[0] if len(done) == 1 else torch.cat(done, dim=across)

    def _make_bias(
        self, tokens: Sequence[int], keys: int, rows: slice, text: int, q: Tensor, keep: bool
    ) -> Tensor:
        key = (keys, rows.start, rows.stop, text)
        if key in self._bias:
            return self._bias[key]
        bias = make_bias(self._weights, tokens, self._cells, keys, rows, text, q.device).to(q.dtype)
        if keep:  # every block of the call asks for the same
            self._bias[key] = bias
        return bias


def _as_bias(mask: Tensor, rows: slice, q: Tensor) -> Tensor:
    """Another node's mask as numbers to add, `[B or 1, 1 or heads, rows or 1, keys]`."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -torch.inf)
    while mask.ndim < 4:
        mask = mask.unsqueeze(0 if mask.ndim == 2 else 1)
    return mask if mask.shape[2] == 1 else mask[:, :, rows]
