"""Reading the tensors of a planned LoRA file, and keeping the last files in memory."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..base.errors import InputError
from ..base.safetensors import Header, read_header
from .parts import DIFF, LOHA, LOKR, LORA, Part, compute_delta
from .plan import FilePlan, PlannedPart

MOST_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class LoraFile:
    """A file's header, and those of its tensors that were asked for, on the CPU in the types stored."""

    header: Header
    path: str
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

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
            raise InputError(f"{label} cannot be read ({error}): download it again.") from error
        for key, tensor in read.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor.float().sum()):
                raise InputError(
                    f"{label} holds values that are not numbers ({key[:80]}): its training failed or the "
                    "file is damaged. Use another version of it."
                )
        self.tensors.update(read)


class FileCache:
    """The files used last, by (path, modification time, size), within `most_bytes`.

    openings: how often a header was read from disk.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self.openings = 0
        self._files: OrderedDict[tuple[str, int, int], LoraFile] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, path: str, name: str) -> LoraFile:
        """The file with its header checked. Raises ValueError naming it."""
        try:
            stat = os.stat(path)
        except OSError as error:
            raise InputError(
                f'lora "{name}" cannot be read ({error.strerror}): check that it is there.'
            ) from error
        key = (os.path.abspath(path), stat.st_mtime_ns, stat.st_size)
        with self._lock:
            if key not in self._files:
                self.openings += 1
                for stale in [other for other in self._files if other[0] == key[0]]:
                    del self._files[stale]
                self._files[key] = LoraFile(read_header(path, "lora", name), path)
            self._files.move_to_end(key)
            return self._files[key]

    def load(self, file: LoraFile, plan: FilePlan) -> None:
        """Read what a plan uses, and let go of the files used longest ago where that is too much."""
        file.load(key for part in plan.parts for key in (*part.keys.values(), part.alpha_key) if key)
        with self._lock:
            while self._files and sum(held.bytes for held in self._files.values()) > self.most_bytes:
                self._files.popitem(last=False)


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
        raise InputError(f"{file.header.label} states a scale of {scale} for {planned.source}: damaged.")
    magnitude = tensor("magnitude") if "magnitude" in planned.keys else None
    swap = _swap_halves if planned.target.swapped else lambda rows: rows
    if planned.kind == LORA:
        up, down = tensor("up"), tensor("down")
        if planned.transposed:
            up, down = up.t(), down.t()
        tensors: tuple[object, ...] = (swap(up), down)
    elif planned.kind == LOHA:
        w1_a, w1_b, w2_a, w2_b = (tensor(f"hada_{name}") for name in ("w1_a", "w1_b", "w2_a", "w2_b"))
        tensors = (swap(w1_a), w1_b, swap(w2_a), w2_b)
    elif planned.kind == LOKR and not planned.target.swapped:
        tensors = (matrix("lokr_w1"), matrix("lokr_w2"))
    elif planned.kind == LOKR:
        # Halves of a Kronecker product cannot be swapped in its factors.
        whole = Part(LOKR, 1.0, 1.0, None, (matrix("lokr_w1"), matrix("lokr_w2")))
        tensors = (swap(compute_delta(whole, torch.empty(planned.shape))),)
        return Part(DIFF, scale, weight, _maybe(swap, magnitude), tensors), alpha
    else:
        tensors = (swap(tensor("diff")),)
    return Part(planned.kind, scale, weight, _maybe(swap, magnitude), tensors), alpha


def _maybe(swap: Callable[[Tensor], Tensor], magnitude: Tensor | None) -> Tensor | None:
    if magnitude is None or magnitude.dim() == 2 and magnitude.shape[0] == 1:
        return magnitude
    return swap(magnitude)


def _swap_halves(rows: Tensor) -> Tensor:
    """(scale, shift) to (shift, scale) along the first axis."""
    return torch.cat(rows.chunk(2)[::-1])
