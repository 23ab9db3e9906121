"""Which model it is: a short name that follows from its weights, so that what was fitted to one model is not
used on another. A few numbers of a few tensors tell any two trainings apart, and cost nothing to read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

TENSORS = 8
NUMBERS = 64


def read_fingerprint(patcher: Any) -> str:
    """16 hex digits for a ModelPatcher's weights and the LoRAs in them; empty where they cannot be read.

    LoRAs beside the weights (injections, wrappers) cannot be told apart, so such a model has none either.
    """
    if getattr(patcher, "injections", None) or _bypassed(patcher):
        return ""
    digest = hashlib.sha256()
    try:
        for name, numbers in _list_weights(patcher):
            digest.update(name.encode() + numbers)
        for name, numbers in _list_patches(getattr(patcher, "patches", {})):
            digest.update(name.encode() + numbers)
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return ""  # weights that are not in memory, or of a class that gives no numbers
    return digest.hexdigest()[:16]


def _bypassed(patcher: Any) -> bool:
    """Whether LoRAs of Klein LoRA Stack run beside the layers."""
    wrappers = patcher.model_options.get("transformer_options", {}).get("wrappers", {})
    return any("lora" in str(key) for kind in wrappers.values() for key in kind) or any(
        "lora" in str(key) for kind in patcher.wrappers.values() for key in kind
    )


def _list_weights(patcher: Any) -> Iterator[tuple[str, bytes]]:
    """A few matrices spread over the network, as they were loaded: without the patches that ComfyUI writes
    into them.
    """
    network = patcher.model.diffusion_model
    named = sorted((name, value) for name, value in network.named_parameters() if value.dim() == 2)
    backup = getattr(patcher, "backup", {})
    for i in range(min(TENSORS, len(named))):
        name, value = named[i * len(named) // TENSORS if len(named) > TENSORS else i]
        kept = backup.get(f"diffusion_model.{name}")
        yield name, _read(value if kept is None else kept.weight)


def _list_patches(patches: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    for key in sorted(patches, key=str):
        for strength, value, *_ in patches[key]:
            weights = getattr(value, "weights", value)
            tensors = [part for part in weights if isinstance(part, Tensor)] if weights is not None else []
            yield f"{key} {strength}", b"".join(_read(tensor) for tensor in tensors[:2])


def _read(value: Tensor) -> bytes:
    """The first numbers of a tensor. Another weight type is another model: it paints other pictures."""
    if value.is_meta:
        raise ValueError("not in memory")
    row = value.detach().reshape(-1)[:NUMBERS]
    return bytes(row.to("cpu", torch.float32).numpy().tobytes())
