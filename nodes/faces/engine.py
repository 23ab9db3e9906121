"""The whole of refining faces inside ComfyUI: find, choose, paint, and tell."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_management
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ..model.engine import facts_of
from ..sampling import checks
from .composite import cut_out
from .detection import Face
from .detectors import load_detector
from .painter import Painter, Steering
from .plan import Plan, RefineRequest, order_waves, plan_faces
from .preview import draw_preview
from .regions import faces_from_boxes, faces_from_mask, outline_with_mask
from .report import PAINTED, Outcome, headline, write_report

logger = logging.getLogger("kleinod.faces")


@dataclass(frozen=True)
class Source:
    """Where faces come from: a detector's name, or BOUNDING_BOX or MASK values, which then count instead."""

    detector: str
    boxes: Any = None
    mask: Tensor | None = None


@dataclass(frozen=True)
class Refined:
    """image: IMAGE, the very tensor given where nothing was painted. mask: MASK, what may have changed.
    boxes: a list of core's bounding boxes for each picture, in painting order. before, after: crops, each
    `[1, h, w, 3]`. preview: IMAGE with numbers."""

    image: Tensor
    mask: Tensor
    boxes: list[list[dict[str, Any]]]
    before: list[Tensor]
    after: list[Tensor]
    preview: Tensor
    info: str
    headline: str


def refine_faces(image: Tensor, source: Source, steering: Steering, request: RefineRequest) -> Refined:
    """Find and paint the faces of an IMAGE `[B, H, W, 3 or 4]`. Nothing is loaded where there is none."""
    checks.check_image(image)
    started = time.perf_counter()
    request, notes = _suit_model(request, steering.model)
    size = image.shape[2], image.shape[1]
    found, origin = find_faces(image, source, request.settings.confidence)
    plan = plan_faces(found, size, request)
    outcomes: list[Outcome] = []
    result, before = image, []
    if plan.jobs and request.settings.strength > 0:
        painter = Painter(steering, request, len(plan.jobs))
        result = image.clone()
        for wave in order_waves(plan.jobs):
            outcomes += painter.paint_wave(result, wave)
        outcomes.sort(key=lambda outcome: (outcome.picture, outcome.number))
        notes += painter.notes
        before = [cut_out(image[job.picture], job.crop)[None] for job in plan.jobs]
        if not any(outcome.fate == PAINTED for outcome in outcomes):
            result = image
    elif plan.jobs:
        notes.append("Strength 0: faces were found, nothing was painted.")
    painted = {(o.picture, o.number) for o in outcomes if o.fate == PAINTED}
    for note in notes:
        logger.info(note)
    return Refined(
        image=result,
        mask=_join_masks(plan, painted, image),
        boxes=[[_as_box(job.face) for job in plan.jobs if job.picture == i] for i in range(len(image))],
        before=before,
        after=[cut_out(result[job.picture], job.crop)[None] for job in plan.jobs] if before else [],
        preview=draw_preview(image, plan),
        info=write_report(request, origin, plan, outcomes, len(image), notes, time.perf_counter() - started),
        headline=headline(plan, outcomes),
    )


def find_faces(image: Tensor, source: Source, confidence: float) -> tuple[list[list[Face]], str]:
    """The faces of every picture, and in words who found them. Boxes and masks count before the detector."""
    count, size = len(image), (image.shape[2], image.shape[1])
    if source.boxes is not None:
        faces = faces_from_boxes(source.boxes, count, size)
        if source.mask is None:
            return faces, "bounding_boxes"
        return outline_with_mask(faces, source.mask, size), "bounding_boxes, outlined by mask"
    if source.mask is not None:
        return faces_from_mask(source.mask, count, size), "mask"
    detector = load_detector(source.detector)
    faces = []
    for picture in image:
        comfy.model_management.throw_exception_if_processing_interrupted()
        faces.append(detector.detect(picture[..., :3].float(), confidence))
    return faces, f"{detector.name} at confidence {confidence:g}"


def _suit_model(request: RefineRequest, model: Any) -> tuple[RefineRequest, list[str]]:
    """The request with what this model cannot do set right, and a word about each change."""
    facts = facts_of(model)
    notes: list[str] = []
    if facts is None:
        return request, notes
    settings = request.settings
    if facts.family == "nano" and settings.inpaint_size != min(facts.native_size):
        side = min(facts.native_size)
        notes.append(
            f"klein-nano paints {side} pixels, so inpaint_size {settings.inpaint_size} was not used."
        )
        request = replace(request, settings=replace(settings, inpaint_size=side))
    if facts.distilled and request.guidance > 1:
        notes.append(
            f"This model is distilled to work without guidance; guidance {request.guidance:g} burns faces. "
            "Set it to 1, or take the preset Klein distilled."
        )
    return request, notes


def _join_masks(plan: Plan, painted: set[tuple[int, int]], image: Tensor) -> Tensor:
    """MASK `[B, H, W]` of the painted faces."""
    mask = torch.zeros(image.shape[:3])
    for job in plan.jobs:
        if (job.picture, job.number) in painted:
            rows, columns = job.crop.region
            region = mask[job.picture, rows, columns]
            torch.maximum(region, job.masks.composite, out=region)
    return mask


def _as_box(face: Face) -> dict[str, Any]:
    x0, y0, x1, y1 = (round(edge) for edge in face.box)
    return {
        "x": x0,
        "y": y0,
        "width": max(1, x1 - x0),
        "height": max(1, y1 - y0),
        "label": face.label,
        "score": face.score,
    }


def send_crops(crops: list[Tensor]) -> list[Any]:
    """Crops as an output list. An empty one would run the nodes behind it without an input, so that they
    fail; blocked, they rest."""
    return list(crops) or [ExecutionBlocker(None)]
