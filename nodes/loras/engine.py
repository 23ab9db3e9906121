"""Putting a stack of LoRAs onto a ComfyUI MODEL.

Rows for all steps become weight patches of a clone: one adapter a weight for the whole stack, which writes
the weight once for any number of plain LoRAs. Rows with a stage, and all rows where the user wants it, run
beside the layers (`beside.py`), through two wrappers under our key. Nothing else of the model is touched.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP
from comfy.weight_adapter import WeightAdapterBase
from torch import Tensor

from ..base.errors import InputError
from ..base.families import name_other_family
from ..base.values import LoraRow, Loras
from . import library
from .beside import BesideLoras, Gate, Slot
from .info import list_trigger_words
from .parts import Part, add_parts
from .plan import PlannedPart, plan_file
from .report import FileReport, write_report
from .request import StackRequest, rows_of_stack, stack_of_rows
from .search import Found, find_all
from .targets import Architecture
from .tensors import FileCache, build_parts

logger = logging.getLogger("kleinod.loras")

KEY = "kleinod.loras"
ATTACHMENT = "kleinod_loras"


@dataclass(frozen=True)
class Stacked:
    """What a stack gives: the MODEL (None without one), all rows, their LORA_STACK, the report."""

    model: Any
    loras: Loras
    lora_stack: list[tuple[str, float, float]]
    report: str


class StackAdapter(WeightAdapterBase):
    """All changes of one stack to one weight (or rows of it), as ComfyUI applies weight patches.

    weights: a tuple of `Part`s, or of plain tuples where ComfyUI has moved them.
    """

    name = "kleinod_stack"

    def __init__(self, loaded_keys: set[str], weights: tuple[Any, ...]) -> None:
        self.loaded_keys = loaded_keys
        self.weights = weights

    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: Any,
        function: Callable[[Tensor], Tensor],
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: Any = None,
    ) -> Tensor:
        parts = [Part(*fields) for fields in self.weights]
        if strength != 1.0:
            parts = [part._replace(weight=part.weight * strength) for part in parts]
        if weight.dtype == intermediate_dtype:
            return add_parts(weight, parts)
        # GPUs keep the weight in float16 here: sum in float32 and round once.
        return weight.copy_(add_parts(weight.to(intermediate_dtype), parts))


@functools.lru_cache(maxsize=1)
def find_cache() -> FileCache:
    """The files read last; one cache serves every stack of the process."""
    return FileCache()


def apply_stack(
    model: Any, request: StackRequest, lora_stack: Any = None, loras: Loras | None = None
) -> Stacked:
    """Apply the rows of `lora_stack`, of `loras` and of the node itself, in this order, to `model`.

    Incoming rows that the model already carries are left out: chaining both wires is no mistake. Without a
    model rows are only collected. Raises ValueError naming the row or file at fault.
    """
    incoming = (*rows_of_stack(lora_stack), *(loras.rows if loras is not None else ()))
    rows = Loras((*incoming, *request.rows.rows))
    stack = stack_of_rows(rows)
    if model is None:
        return Stacked(None, rows, stack, write_report(rows, [], ["No model connected: nothing applied."]))
    carried = _carried_by(model, incoming)
    todo = [row for index, row in enumerate(rows.rows) if index not in carried]
    shelf = library.open_shelf() if any(row.acts and row.file for row in todo) else None
    found, notes = find_all(todo, lambda row: library.find_with_progress(shelf, row), request.skips_missing)
    notes += [
        f"{rows.rows[index].label}: in the model already, not applied again." for index in sorted(carried)
    ]
    network = read_architecture(model)
    loaded = _load_rows(todo, found, network)
    patched = _patch(model, loaded, request.beside) if loaded else model
    files, hashes = [item.report for item in loaded], library.find_hashes(found)
    report = write_report(Loras(tuple(todo)), files, notes, hashes)
    logger.info("%s", report.splitlines()[0])
    return Stacked(patched, rows, stack, report)


@dataclass(frozen=True)
class _Loaded:
    row: LoraRow
    parts: list[tuple[PlannedPart, Part]]
    report: FileReport


def read_architecture(model: Any) -> Architecture:
    """Linear layers and norms of a MODEL. Raises ValueError where it is no FLUX.2."""
    network = model.model.diffusion_model
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_modules():
        if hasattr(module, "in_features"):
            # Not the weight's shape: quantised weights are stored packed.
            shapes[name] = (module.out_features, module.in_features)
        else:
            weight = getattr(module, "weight", getattr(module, "scale", None))
            if isinstance(weight, Tensor) and weight.dim() == 1:
                shapes[name] = tuple(weight.shape)
    if "img_in" not in shapes or "double_stream_modulation_img.lin" not in shapes:
        raise InputError(
            f"model is {name_other_family(model) or 'cut off'}, but Klein LoRA Stack knows FLUX.2 [klein] "
            "only: connect Klein Loader, or Load Diffusion Model with a flux-2-klein file; for others use "
            "Load LoRA."
        )
    return Architecture(shapes)


def _load_rows(
    rows: Sequence[LoraRow], found: Sequence[Found | None], architecture: Architecture
) -> list[_Loaded]:
    progress = comfy.utils.ProgressBar(max(1, len(rows)))
    loaded = []
    for number, (row, place) in enumerate(zip(rows, found, strict=True), 1):
        if place is not None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            file = find_cache().open(place.path, place.name)
            plan = plan_file(file.header, architecture)
            find_cache().load(file, plan)
            built = build_parts(file, plan, row.weight)
            words = list_trigger_words(file.header, place.path)
            report = FileReport.of(number, row, place, plan, [alpha for _, _, alpha in built], words)
            loaded.append(_Loaded(row, [(planned, part) for planned, part, _ in built], report))
        progress.update(1)
    return loaded


def _patch(model: Any, loaded: Sequence[_Loaded], beside: bool) -> Any:
    patched = model.clone()
    weights: dict[Slot, list[Part]] = {}
    groups: dict[Gate, dict[Slot, list[Part]]] = {}
    for item in loaded:
        staged = item.row.stage != "both"
        gate = Gate(item.row.stage, item.row.boundary) if staged else Gate()
        for planned, part in item.parts:
            slot = Slot(planned.target.module, planned.target.start, planned.target.length)
            is_norm = len(planned.shape) == 1
            if (staged or beside) and not is_norm:
                groups.setdefault(gate, {}).setdefault(slot, []).append(part)
            elif not staged:
                weights.setdefault(slot, []).append(part)
    if weights:
        names = patched.model.state_dict().keys()
        adapters = {_patch_key(slot, names): _adapter(slot, parts) for slot, parts in weights.items()}
        patched.add_patches(adapters)
    if groups:
        _wrap(patched, BesideLoras(groups))
    applied = tuple(item.row for item in loaded)
    patched.set_attachments(ATTACHMENT, (*(model.get_attachment(ATTACHMENT) or ()), *applied))
    return patched


def _wrap(patched: Any, beside: BesideLoras) -> None:
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, beside.sample)
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, beside.apply)


def _adapter(slot: Slot, parts: Sequence[Part]) -> StackAdapter:
    return StackAdapter({slot.module}, tuple(parts))


def _patch_key(slot: Slot, names: Any) -> str | tuple[str, tuple[int, int, int]]:
    """ComfyUI's key of a patch: the weight's name, and which of its rows."""
    ending = "weight" if f"diffusion_model.{slot.module}.weight" in names else "scale"
    key = f"diffusion_model.{slot.module}.{ending}"
    return (key, (0, slot.start, slot.length)) if slot.length else key


def _carried_by(model: Any, incoming: Sequence[LoraRow]) -> set[int]:
    """Indices of incoming rows that were applied to the model before it came here."""
    applied = Counter(_identity(row) for row in model.get_attachment(ATTACHMENT) or ())
    carried = set()
    for index, row in enumerate(incoming):
        if row.acts and applied[_identity(row)] > 0:
            applied[_identity(row)] -= 1
            carried.add(index)
    return carried


def _identity(row: LoraRow) -> Mapping[str, Any] | tuple[Any, ...]:
    return row.file, row.weight
