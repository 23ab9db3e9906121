"""What Klein Inpaint and Klein Outpaint tell: each region's place, size, noise level, seed and fate."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..base.sentences import Sentence, join, say
from ..regions.result import PAINTED, Painted, describe, describe_run, write_notes
from .plan import EditPlan, EditRegion
from .request import EditRequest

PaintedRegion = Painted[EditRegion]
SOFT = 0.8
"""Scales below this are named: the painting comes back softer than its surroundings."""


def headline(plan: EditPlan, results: Sequence[PaintedRegion], mask: Tensor) -> Sentence:
    """One line to stand under the node."""
    painted = sum(result.fate == PAINTED for result in results)
    if not painted:
        return say("Nothing painted: the picture is as it came.")
    share = float((mask == 0).float().mean())
    count = len(plan.regions)
    words = [say("1 of 1 region painted") if count == 1 else say("%1 of %2 regions painted", painted, count)]
    return join(", ", [*words, say("%1 of the picture kept bit for bit", f"{share:.1%}")])


def write_report(
    request: EditRequest,
    plan: EditPlan,
    results: Sequence[PaintedRegion],
    mask: Tensor,
    pictures: int,
    notes: Sequence[Sentence],
    seconds: float,
) -> str:
    """Lines of text. mask: MASK of what may have changed."""
    lines: list[str] = [headline(plan, results, mask)]
    if any(result.fate == PAINTED for result in results):
        sigmas = [result.sigma for result in results]
        steps, guidance = request.painting.steps_run, request.guidance
        lines += describe_run(request.strength, request.strength_mode, sigmas, steps, guidance, seconds)
    lines += [describe_region(result, pictures > 1) for result in results]
    softest = min((float(result.region.crop.scale) for result in results), default=1.0)
    if softest < SOFT:
        notes = [
            *notes,
            say(
                "A region was painted at %1 of its size and is softer than what is around it: "
                "raise megapixels, lower context, or mask less.",
                f"{softest:.2f}",
            ),
        ]
    return "\n".join([*lines, *write_notes(notes)])


def describe_region(painted: PaintedRegion, many: bool) -> str:
    """One line. many: the run has several pictures."""
    return describe(painted, say("region %1", painted.region.number), painted.region.box, many)
