"""What the face refiner tells: every face with its place, size, noise level, seed and fate."""

from __future__ import annotations

from collections.abc import Sequence

from ..base.sentences import Sentence, say
from ..regions.result import PAINTED, Painted, describe
from .plan import FacePlan, FaceRegion, RefineRequest

PaintedFace = Painted[FaceRegion]


def describe_face(painted: PaintedFace, many: bool) -> str:
    """One line on a face that was planned. many: the run has several pictures."""
    face = painted.region.face
    return describe(painted, "face", face.box, many, f", score {face.score:.2f}")


def write_report(
    request: RefineRequest,
    source: str,
    plan: FacePlan,
    results: Sequence[PaintedFace],
    pictures: int,
    notes: Sequence[str],
    seconds: float,
) -> str:
    """Lines of text. source: where the faces come from, in words."""
    settings = request.settings
    painted = [result for result in results if result.fate == PAINTED]
    lines = [
        f"faces      {len(plan.regions) + len(plan.left_out)} found by {source}, {len(painted)} painted",
    ]
    if painted:
        sigmas = sorted({round(result.sigma, 3) for result in painted})
        levels = " and ".join(f"{sigma:g}" for sigma in sigmas)
        lines += [
            f"strength   {settings.strength:g} ({request.strength_mode}): starts at sigma {levels}",
            f"steps      {settings.steps} at guidance {request.painting.guidance:g}",
            f"time       {seconds:.1f} s",
        ]
    many = pictures > 1
    lines += [describe_face(result, many) for result in results]
    for left in plan.left_out:
        where = f"picture {left.picture + 1} " if many else ""
        x, y = (round(edge) for edge in left.face.box[:2])
        lines.append(f"{where}left out at {x},{y}: {left.reason}")
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def headline(plan: FacePlan, results: Sequence[PaintedFace]) -> Sentence:
    """One line to stand under the node."""
    found = len(plan.regions) + len(plan.left_out)
    painted = sum(result.fate == PAINTED for result in results)
    if not found:
        return say("No face found: the picture is as it came.")
    if found == 1:
        return say("%1 of 1 face painted", painted)
    return say("%1 of %2 faces painted", painted, found)
