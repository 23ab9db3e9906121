"""Reading the tensors of a planned LoRA file, once for all who use it at the same time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..base.errors import InputError
from ..base.safetensors import Header, read_header
from ..base.sentences import say
from .parts import BOFT, DIFF, GLORA, LOHA, LOKR, LORA, OFT, SET, Part, compute_delta
from .plan import FilePlan, PlannedPart


@dataclass(frozen=True, eq=False)
class LoraFile:
    """A file's header, and those of its tensors that were asked for, on the CPU in the types stored."""

    header: Header
    path: str
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def load(self, keys: Iterable[str]) -> None:
        """Read tensors that are not there yet. Raises ValueError where they hold no numbers."""
        missing = [key for key in keys if key not in self.tensors]
        if not missing:
            return
        label = self.header.label
        try:
            with safe_open(self.path, "pt", device="cpu") as file:
                # Copies, so that the file is not held open or mapped.
                read = {key: file.get_tensor(key).clone() for key in missing}
        except (SafetensorError, OSError, RuntimeError) as error:
            raise InputError(say("%1 cannot be read (%2): download it again.", label, error)) from error
        for key, tensor in read.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor.float().sum()):
                raise InputError(
                    say(
                        "%1 holds values that are not numbers (%2): its training failed or the "
                        "file is damaged. Use another version of it.",
                        label,
                        key[:80],
                    )
                )
        self.tensors.update(read)


class OpenFiles:
    """The files in use right now, by path, modification time and size: two stacks with the same file share
    its tensors. It holds none of them itself: a file goes with the last MODEL that uses it.
    """

    def __init__(self) -> None:
        self._files: WeakValueDictionary[tuple[str, int, int], LoraFile] = WeakValueDictionary()
        self._lock = threading.Lock()

    def open(self, path: str, name: str) -> LoraFile:
        """The file with its header checked. Raises InputError naming it."""
        try:
            stat = os.stat(path)
        except OSError as error:
            raise InputError(
                say('lora "%1" cannot be read (%2): check that it is there.', name, error.strerror)
            ) from error
        key = (os.path.abspath(path), stat.st_mtime_ns, stat.st_size)
        with self._lock:
            file = self._files.get(key)
            if file is None:
                file = self._files[key] = LoraFile(read_header(path, "lora", name), path)
            return file


def load_plan(file: LoraFile, plan: FilePlan) -> None:
    """Read what a plan uses. Raises InputError where it holds no numbers."""
    file.load(key for part in plan.parts for key in (*part.keys.values(), part.alpha_key) if key)


def build_parts(
    file: LoraFile, plan: FilePlan, weight: float
) -> list[tuple[PlannedPart, Part, float | None]]:
    """(what it changes, the change, its alpha) of every part at a row's weight.

    Raises ValueError where the file holds numbers that are none.
    """
    return [(planned, *_build(file, planned, weight)) for planned in plan.parts]


def _build(file: LoraFile, planned: PlannedPart, weight: float) -> tuple[Part, float | None]:
    def tensor(role: str) -> Tensor:
        return file.tensors[planned.keys[role]]

    def matrix(name: str) -> Tensor | tuple[Tensor, Tensor]:
        return tensor(name) if name in planned.keys else (tensor(f"{name}_a"), tensor(f"{name}_b"))

    alpha = float(file.tensors[planned.alpha_key].flatten()[0]) if planned.alpha_key else planned.alpha
    scale = planned.scale(alpha) * (float(tensor("scalar").flatten()[0]) if "scalar" in planned.keys else 1.0)
    if not torch.isfinite(torch.tensor(scale)):
        raise InputError(
            say("%1 states a scale of %2 for %3: damaged.", file.header.label, scale, planned.source)
        )
    magnitude = tensor("magnitude") if "magnitude" in planned.keys else None
    swap = _swap_halves if planned.target.swapped else _keep
    magnitude = magnitude if magnitude is None or _is_per_column(magnitude) else swap(magnitude)
    if planned.kind in (OFT, BOFT, GLORA, SET):
        return Part(
            planned.kind, 1.0, weight, None, _build_adapted(planned, tensor, swap, alpha, magnitude)
        ), alpha
    tensors: tuple[Any, ...]
    if planned.kind == LORA:
        up, down = tensor("up"), tensor("down")
        if planned.transposed:
            up, down = up.t(), down.t()
        tensors = (swap(up), down)
    elif planned.kind == LOHA:
        w1_a, w1_b, w2_a, w2_b = (tensor(f"hada_{name}") for name in ("w1_a", "w1_b", "w2_a", "w2_b"))
        tensors = (swap(w1_a), w1_b, swap(w2_a), w2_b)
    elif planned.kind == LOKR and not planned.target.swapped:
        tensors = (matrix("lokr_w1"), matrix("lokr_w2"))
    elif planned.kind == LOKR:
        # Halves of a Kronecker product cannot be swapped in its factors.
        whole = Part(LOKR, 1.0, 1.0, None, (matrix("lokr_w1"), matrix("lokr_w2")))
        tensors = (swap(compute_delta(whole, torch.empty(planned.shape))),)
        return Part(DIFF, scale, weight, magnitude, tensors), alpha
    else:
        tensors = (swap(tensor("diff")),)
    return Part(planned.kind, scale, weight, magnitude, tensors), alpha


def _build_adapted(
    planned: PlannedPart,
    tensor: Callable[[str], Tensor],
    swap: Callable[[Tensor], Tensor],
    alpha: float | None,
    magnitude: Tensor | None,
) -> tuple[Any, ...]:
    """What ComfyUI's adapter of that kind takes, in its order."""
    if planned.kind == SET:
        return (swap(tensor("set_weight")),)
    if planned.kind == GLORA:
        a1, a2, b1, b2 = (tensor(role) for role in ("a1", "a2", "b1", "b2"))
        first = b1.shape[0] == planned.shape[0] and b1.shape[1] == planned.rank
        b1, b2 = (swap(b1), b2) if first else (b1, swap(b2))
        return (a1, a2, b1, b2, alpha, magnitude)
    alpha = alpha or 0.0  # of a rotation: how far it may turn, 0 without a bound; BOFT takes no None
    rescale = tensor("rescale") if "rescale" in planned.keys else None
    return (swap(tensor("oft_blocks")), rescale, alpha, magnitude)


def _is_per_column(magnitude: Tensor) -> bool:
    return magnitude.dim() == 2 and magnitude.shape[0] == 1


def _keep(rows: Tensor) -> Tensor:
    return rows


def _swap_halves(rows: Tensor) -> Tensor:
    """(scale, shift) to (shift, scale) along the first axis."""
    return torch.cat(rows.chunk(2)[::-1])
