"""How blocks of later ComfyUIs behave, in copies of ours: what is skipped, kept and supplied stays right.

As far as it could be seen (0.36 and later): query, key and value are handed to attention in a container that
gives each out once; a block may bring an attention of its own; the norm before a block's layers is one fused
sum, which rounds otherwise. Blocks that are recorded as graphs: test_graph_capture.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.ldm.flux.layers as layers
import pytest
import torch
from kleinod.nodes.base.values import HIGHER_REUSES_MORE, Acceleration
from kleinod.nodes.sampling.nodes import KleinodSampler
from torch import Tensor

from tests.model.tiny_klein import load_tiny_model, random_conditioning, tiny_vae

BOLD = {"threshold_meaning": HIGHER_REUSES_MORE, "cache_start_step": 1, "cache_end_step": 7}
SETTINGS = {
    "none": None,
    "first block": Acceleration("none", fb_cache=True, fb_cache_threshold=0.9, **BOLD),
    "dual block": Acceleration("none", db_cache=True, db_cache_threshold=0.9, **BOLD),
    "refresh": Acceleration("none", reference_cache="refresh", reference_interval=3),
    "exact": Acceleration("none", reference_cache="exact (9B-KV)"),
}


class Container:
    """Gives each of query, key and value out once, and forgets it: memory is free before attention runs."""

    def __init__(self, **tensors: Tensor) -> None:
        self._tensors = tensors

    def take(self, name: str) -> Tensor:
        return self._tensors.pop(name)


def in_a_container(monkeypatch: pytest.MonkeyPatch, prefer: Callable[..., Tensor] | None = None) -> list[int]:
    """Every block's attention takes its tensors out of a container; `prefer` is a block's own attention."""
    plain, lengths = layers.attention, []

    def attend(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **named: Any) -> Tensor:
        lengths.append(k.shape[2])
        box = Container(q=q, k=k, v=v)
        del q, k, v
        taken = [box.take(name) for name in "qkv"]
        return (prefer or plain)(*taken, *rest, **named)

    monkeypatch.setattr(layers, "attention", attend)
    return lengths


def fused_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norm and modulation as one sum in another order, which differs in the last bits."""

    def modulate(
        tensor: Tensor, m_mult: Tensor, m_add: Tensor | None = None, modulation_dims: Any = None
    ) -> Tensor:
        if modulation_dims is not None:
            out = tensor.clone()
            for begin, end, row in modulation_dims:
                part = tensor[:, begin:end]
                out[:, begin:end] = part * m_mult[:, row : row + 1]
                if m_add is not None:
                    out[:, begin:end] += m_add[:, row : row + 1]
            return out
        return tensor * m_mult if m_add is None else tensor * (m_mult - 1) + (tensor + m_add)

    monkeypatch.setattr(layers, "apply_mod", modulate)


def paint(settings: Acceleration | None, references: bool) -> Tensor:
    positive, negative = random_conditioning(1), random_conditioning(2)
    if references:
        picture = torch.randn(1, 128, 8, 8, generator=torch.Generator().manual_seed(3))
        for conditioning in (positive, negative):
            conditioning[0][1]["reference_latents"] = [picture]
    with torch.inference_mode():
        made = KleinodSampler.execute(
            load_tiny_model(), positive, negative, tiny_vae(), 128, 128, 8, 4.0, 1, "Default", 1,
            acceleration_settings=settings,
        )  # fmt: skip
    return made.args[1]["samples"]


@pytest.mark.parametrize("name", SETTINGS)
def test_attention_by_container_changes_no_bit(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    references = name in ("refresh", "exact")
    expected = paint(SETTINGS[name], references)
    lengths = in_a_container(monkeypatch)
    assert torch.equal(paint(SETTINGS[name], references), expected)
    assert lengths


@pytest.mark.parametrize("name", ["none", "refresh", "exact"])
def test_a_blocks_own_attention_gets_the_references_too(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Stored keys are supplied before a block chooses its attention, so each kind of it sees them."""
    plain = layers.attention

    def own(*tensors: Any, **named: Any) -> Tensor:
        return plain(*tensors, **named)

    lengths = in_a_container(monkeypatch, own)
    paint(SETTINGS[name], references=True)
    assert len(set(lengths)) == 1, "text, picture and reference in every call"


@pytest.mark.parametrize("name", SETTINGS)
def test_a_fused_norm_moves_last_bits_only(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    references = name in ("refresh", "exact")
    before = paint(SETTINGS[name], references)
    fused_norm(monkeypatch)
    after = paint(SETTINGS[name], references)
    assert float((after - before).abs().max()) < 1e-3 * float(before.abs().max())
