"""What the face refiner tells: every face with its place, size, noise level, seed and fate."""

from __future__ import annotations

from collections.abc import Sequence

from ..base.sentences import Sentence, join, say
from ..regions.result import PAINTED, Painted, describe, describe_run, write_notes, write_row
from .plan import FacePlan, FaceRegion, RefineRequest

PaintedFace = Painted[FaceRegion]


def describe_face(painted: PaintedFace, many: bool) -> str:
    """One line on a face that was planned. many: the run has several pictures."""
    face = painted.region.face
    name = say("face %1", painted.region.number)
    return describe(painted, name, face.box, many, [say("score %1", f"{face.score:.2f}")])


def write_report(
    request: RefineRequest,
    source: str,
    plan: FacePlan,
    results: Sequence[PaintedFace],
    pictures: int,
    notes: Sequence[Sentence],
    seconds: float,
) -> str:
    """Lines of text. source: where the faces come from, in words."""
    settings = request.settings
    painted = [result for result in results if result.fate == PAINTED]
    found = len(plan.regions) + len(plan.left_out)
    counts = join(", ", [say("%1 found by %2", found, source), say("%1 painted", len(painted))])
    lines = [write_row(say("faces"), counts)]
    if painted:
        sigmas = [result.sigma for result in painted]
        guidance = request.painting.guidance
        lines += describe_run(
            settings.strength, request.strength_mode, sigmas, settings.steps, guidance, seconds
        )
    many = pictures > 1
    lines += [describe_face(result, many) for result in results]
    for left in plan.left_out:
        x, y = (round(edge) for edge in left.face.box[:2])
        line = join(": ", [say("left out at %1", f"{x},{y}"), Sentence(left.reason)])
        lines.append(join(", ", [say("picture %1", left.picture + 1), line]) if many else line)
    return "\n".join([*lines, *write_notes(notes)])


def headline(plan: FacePlan, results: Sequence[PaintedFace]) -> Sentence:
    """One line to stand under the node."""
    found = len(plan.regions) + len(plan.left_out)
    painted = sum(result.fate == PAINTED for result in results)
    if not found:
        return say("No face found: the picture is as it came.")
    if found == 1:
        return say("%1 of 1 face painted", painted)
    return say("%1 of %2 faces painted", painted, found)
