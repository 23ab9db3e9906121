"""Putting a stack of LoRAs onto a ComfyUI MODEL.

Rows for all steps become weight patches of a clone: one adapter a weight for the whole stack, which writes
the weight once for any number of plain LoRAs. Rows with a stage, and all rows where the user wants it, bypass
the weights (`bypass.py`), through two wrappers under our key; what merging and saving nodes see of them is
`merging.py`'s. Nothing else of the model is touched.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..base import graph_capture, seams
from ..base.errors import InputError
from ..base.families import name_other_family
from ..base.sentences import Sentence, join, say
from ..base.values import BOTH_STAGES, LoraRow, Loras
from . import library
from .bypass import BypassLoras, Slot, StageGate
from .core_adapters import change_of
from .info import list_trigger_words
from .merging import add_bypass
from .parts import Part
from .patches import list_patches
from .plan import PlannedPart, plan_file
from .report import FileReport, write_headline, write_report
from .request import StackRequest, rows_of_stack, stack_of_rows
from .search import Found, find_all
from .targets import Architecture
from .tensors import LoraFile, OpenFiles, build_parts, load_plan

comfy = seams.modules("comfy.model_management", "comfy.utils")

logger = logging.getLogger("kleinod.loras")

ROWS = "kleinod_loras"
"""Attachment of a MODEL: the rows it carries."""
FILES = "kleinod_lora_files"
"""Attachment of a MODEL: their files, which live as long as it does."""
_open_files = OpenFiles()


@dataclass(frozen=True)
class Stacked:
    """What a stack gives: the MODEL (None without one), all rows, their LORA_STACK, the report, and the line
    under the node."""

    model: Any
    loras: Loras
    lora_stack: list[tuple[str, float, float]]
    report: str
    headline: Sentence


def apply_stack(
    model: Any, request: StackRequest, lora_stack: Any = None, loras: Loras | None = None
) -> Stacked:
    """Apply the rows of `lora_stack`, of `loras` and of the node itself, in this order, to `model`.

    Incoming rows that the model already carries are left out: chaining both wires is no mistake. Without a
    model rows are only collected. Raises InputError naming the row or file at fault.
    """
    seams.require(seams.LORA_STACK)
    incoming = (*rows_of_stack(lora_stack), *(loras.rows if loras is not None else ()))
    rows = Loras((*incoming, *request.rows.rows))
    stack = stack_of_rows(rows)
    if model is None:
        notes = [say("No model connected: nothing applied.")]
        return Stacked(None, rows, stack, write_report(rows, [], notes), write_headline(rows, [], notes))
    carried = _carried_by(model, incoming)
    todo = [row for place, row in enumerate(rows.rows) if place not in carried]
    found, notes = _find_files(todo, request.skips_missing)
    notes += [
        say("%1: in the model already, not applied again.", rows.rows[place].label)
        for place in sorted(carried)
    ]
    network = read_architecture(model)
    loaded = _load_rows(todo, found, network)
    ways = _choose_ways(model, loaded, request.bypass)
    patched = _patch(model, loaded, ways.bypass) if loaded else model
    notes += ways.notes
    files, hashes = [item.report for item in loaded], library.find_hashes(found)
    report = write_report(Loras(tuple(todo)), files, notes, hashes)
    headline = write_headline(Loras(tuple(todo)), files, notes)
    logger.info("%s", report.splitlines()[0])
    return Stacked(patched, rows, stack, report, headline)


def _find_files(rows: Sequence[LoraRow], skips_missing: bool) -> tuple[list[Found | None], list[Sentence]]:
    """The file of each row, None where it needs none; and notes."""
    if not any(row.acts and row.file for row in rows):
        return [None] * len(rows), []
    index = library.read_index()
    return find_all(rows, lambda row: library.find_with_progress(index, row), skips_missing)


@dataclass(frozen=True)
class _Loaded:
    row: LoraRow
    file: LoraFile
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
            say(
                "model is %1, but Klein LoRA Stack knows FLUX.2 [klein] only: connect Klein Loader, "
                "or Load Diffusion Model with a flux-2-klein file; for others use Load LoRA.",
                name_other_family(model) or "cut off",
            )
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
            file = _open_files.open(place.path, place.name)
            plan = plan_file(file.header, architecture)
            load_plan(file, plan)
            built = build_parts(file, plan, row.weight)
            words = list_trigger_words(file.header, place.path)
            report = FileReport.of(number, row, place, plan, [alpha for _, _, alpha in built], words)
            loaded.append(_Loaded(row, file, [(planned, part) for planned, part, _ in built], report))
        progress.update(1)
    return loaded


@dataclass(frozen=True)
class _Ways:
    """bypass: LoRAs act beside the layers, else in their weights. notes: why, where it was not asked for."""

    bypass: bool
    notes: tuple[Sentence, ...] = ()


def _choose_ways(model: Any, loaded: Sequence[_Loaded], bypass: bool) -> _Ways:
    """What was asked for, or what this ComfyUI can do instead. InputError for rows that cannot act so."""
    no_weights = seams.missing(seams.LORAS_IN_WEIGHTS)
    no_beside = seams.missing(seams.LORAS_BESIDE)
    if not no_beside and graph_capture.captures_blocks(model.model.diffusion_model):
        feature = seams.LORAS_BESIDE
        no_beside = join(" ", [graph_capture.explain(feature), feature.instead])
    if not loaded or not (no_weights or no_beside):
        return _Ways(bypass)
    if no_weights and no_beside:
        raise InputError(join(" ", [no_weights, no_beside]))
    if no_weights:
        norms = sum(len(planned.shape) == 1 for item in loaded for planned, _ in item.parts)
        left_out = (say("%1 changes of norms act in the weights only and were left out.", norms),)
        return _Ways(True, (() if bypass else (no_weights,)) + (left_out if norms else ()))
    staged = next((item.row for item in loaded if item.row.stage != BOTH_STAGES), None)
    if staged is not None:
        raise InputError(
            say(
                "%1 acts in the %2 stage only, which it cannot here: %3 Set its stage to both.",
                staged.label,
                staged.stage,
                no_beside,
            )
        )
    return _Ways(False, (no_beside,) if bypass else ())


def _patch(model: Any, loaded: Sequence[_Loaded], bypass: bool) -> Any:
    patched = model.clone()
    weights: dict[Slot, list[Part]] = {}
    groups: dict[StageGate, dict[Slot, list[Part]]] = {}
    for item in loaded:
        staged = item.row.stage != BOTH_STAGES
        gate = StageGate(item.row.stage, item.row.boundary) if staged else StageGate()
        for planned, part in item.parts:
            slot = Slot(planned.target.module, planned.target.start, planned.target.length)
            is_norm = len(planned.shape) == 1
            if (staged or bypass) and not is_norm:
                groups.setdefault(gate, {}).setdefault(slot, []).append(part)
            elif not staged:
                weights.setdefault(slot, []).append(part)
    if weights and not seams.missing(seams.LORAS_IN_WEIGHTS):
        patched.add_patches(dict(list_patches(weights, patched.model.state_dict().keys())))
    if groups:
        add_bypass(patched, BypassLoras(groups, change_of))
    for key, own in ((ROWS, [item.row for item in loaded]), (FILES, [item.file for item in loaded])):
        patched.set_attachments(key, (*(model.get_attachment(key) or ()), *own))
    return patched


def _carried_by(model: Any, incoming: Sequence[LoraRow]) -> set[int]:
    """Indices of incoming rows that were applied to the model before it came here."""
    applied = Counter(_identity(row) for row in model.get_attachment(ROWS) or ())
    carried = set()
    for index, row in enumerate(incoming):
        if row.acts and applied[_identity(row)] > 0:
            applied[_identity(row)] -= 1
            carried.add(index)
    return carried


def _identity(row: LoraRow) -> Mapping[str, Any] | tuple[Any, ...]:
    return row.file, row.weight
