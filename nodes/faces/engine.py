"""The whole of refining faces inside ComfyUI: find, choose, paint, and tell."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..base import seams
from ..base.pictures import take_pictures
from ..base.sentences import Sentence, join, say
from ..model.engine import facts_of
from ..model.text_engine import encode_prompt
from ..regions.blend import cut_out
from ..regions.painter import Painter, PaintInputs
from ..regions.prompts import RegionPrompts
from ..regions.result import PAINTED
from ..regions.sampler import CropSampler
from ..regions.waves import join_masks
from ..sampling.engine import context_width
from ..sampling.schedule import explain_no_steps
from .detection import Detector, Face
from .detectors import load_detector
from .given import explain_boxes, explain_mask, faces_from_boxes, faces_from_mask, outline_with_mask
from .plan import RefineRequest, plan_faces
from .preview import draw_preview
from .prompts import DEFAULT_POSITIVE
from .report import PaintedFace, headline, write_report

comfy = seams.modules("comfy.model_management")

logger = logging.getLogger("kleinod.faces")

DETECTOR = "kleinod_face_detector"
"""Attachment of a MODEL: the detector used with it last."""


@dataclass(frozen=True)
class Source:
    """Where faces come from: a detector's name, or BOUNDING_BOX or MASK values, which then count instead."""

    detector: str
    boxes: Any = None
    mask: Tensor | None = None


EXPLAINED = 4
"""Pictures that are searched again to say why no face was found."""
LEAST_CONFIDENCE = 0.02
"""Below it a detector's scores are noise."""


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
    headline: Sentence


def refine_faces(image: Tensor, source: Source, inputs: PaintInputs, request: RefineRequest) -> Refined:
    """Find and paint the faces of an IMAGE `[B, H, W, 3 or 4]`. Nothing is loaded where there is none."""
    image, words = take_pictures(image)
    started = time.perf_counter()
    request, notes = _suit_model(request, inputs.model)
    notes += words
    size = image.shape[2], image.shape[1]
    found, origin, reasons = find_faces(image, source, request.settings.confidence, inputs.model)
    notes += reasons
    plan = plan_faces(found, size, request)
    results: list[PaintedFace] = []
    made, before = image, []
    if plan.regions and request.painting.steps_run:
        painter = make_painter(inputs, request, len(plan.regions), size)
        made = image.clone()
        results = painter.paint(made, plan.regions)
        notes += painter.notes
        before = [cut_out(image[region.picture], region.crop)[None] for region in plan.regions]
        if not any(result.fate == PAINTED for result in results):
            made = image
    elif plan.regions:
        reason = explain_no_steps(request.painting.steps, request.painting.strength)
        notes.append(say("%1: faces were found, nothing was painted.", reason))
    painted = {result.region for result in results if result.fate == PAINTED}
    for note in notes:
        logger.info(note)
    return Refined(
        image=made,
        mask=join_masks(painted, image.shape),
        boxes=[[_as_box(r.face) for r in plan.regions if r.picture == i] for i in range(len(image))],
        before=before,
        after=[cut_out(made[r.picture], r.crop)[None] for r in plan.regions] if before else [],
        preview=draw_preview(image, plan),
        info=write_report(request, origin, plan, results, len(image), notes, time.perf_counter() - started),
        headline=join("\n", [headline(plan, results), *reasons]),
    )


def make_painter(inputs: PaintInputs, request: RefineRequest, count: int, size: tuple[int, int]) -> Painter:
    """What paints `count` faces of pictures of (width, height). Raises InputError where model, VAE or prompts
    do not fit together."""
    sampler = CropSampler(
        inputs.model, inputs.vae, request.painting, count, size, inputs.references, inputs.acceleration
    )
    prompts = RegionPrompts(
        lambda text, field: encode_prompt(inputs.clip, text, field)[0],
        context_width(inputs.model),
        "faces",
        "face_prompts",
    )
    settings = request.settings
    prompts.share(
        settings.positive_prompt,
        settings.negative_prompt,
        (inputs.positive, inputs.negative),
        DEFAULT_POSITIVE,
    )
    return Painter(sampler, prompts)


def find_faces(
    image: Tensor, source: Source, confidence: float, model: Any = None
) -> tuple[list[list[Face]], str, list[Sentence]]:
    """The faces of every picture, who found them, and why others of what was given are none, in words. Boxes
    and masks count before the detector, which then lives as long as `model` (a MODEL) does, for the next
    run."""
    count, size = len(image), (image.shape[2], image.shape[1])
    if source.boxes is not None:
        faces = faces_from_boxes(source.boxes, count, size)
        reasons = explain_boxes(source.boxes, size)
        if source.mask is None:
            return faces, "bounding_boxes", reasons
        outlined = outline_with_mask(faces, source.mask, size)
        return outlined, say("bounding_boxes (outlined by mask)"), [*reasons, *explain_mask(source.mask)]
    if source.mask is not None:
        faces = faces_from_mask(source.mask, count, size)
        return faces, "mask", explain_mask(source.mask) if not any(faces) else []
    detector = load_detector(source.detector)
    if model is not None:
        model.set_attachments(DETECTOR, detector)
    faces = []
    for picture in image:
        comfy.model_management.throw_exception_if_processing_interrupted()
        faces.append(detector.detect(picture[..., :3].float(), confidence))
    reasons = [] if any(faces) else [explain_no_face(detector, image, confidence)]
    return faces, say("%1 at confidence %2", detector.name, f"{confidence:g}"), reasons


def explain_no_face(detector: Detector, image: Tensor, confidence: float) -> Sentence:
    """Why a detector found nothing in pictures: how sure it was of what comes nearest to a face."""
    unsure = [
        face.score
        for picture in image[:EXPLAINED]
        for face in detector.detect(picture[..., :3].float(), min(confidence, LEAST_CONFIDENCE))[:1]
    ]
    if not unsure:
        return say(
            '"%1" sees nothing like a face: draw a mask over it, or pick another detector.', detector.name
        )
    best = math.floor(max(unsure) * 100) / 100
    return say(
        '"%1" is sure of no face: the best scores %2, below confidence %3. Set confidence to %2 in Klein '
        "Face Settings, or draw a mask over the face.",
        detector.name,
        f"{best:g}",
        f"{confidence:g}",
    )


def _suit_model(request: RefineRequest, model: Any) -> tuple[RefineRequest, list[Sentence]]:
    """The request with what this model cannot do set right, and a word about each change."""
    facts = facts_of(model)
    notes: list[Sentence] = []
    if facts is None:
        return request, notes
    settings = request.settings
    if facts.family == "nano" and settings.inpaint_size != min(facts.native_size):
        side = min(facts.native_size)
        notes.append(
            say("klein-nano paints %1 pixels, so inpaint_size %2 was not used.", side, settings.inpaint_size)
        )
        request = replace(request, settings=replace(settings, inpaint_size=side))
    if facts.distilled and request.painting.guidance > 1:
        notes.append(
            say(
                "This model is distilled to work without guidance; guidance %1 burns faces. "
                "Set it to 1, or take the preset Klein distilled.",
                f"{request.painting.guidance:g}",
            )
        )
    return request, notes


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
