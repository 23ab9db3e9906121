"""What the face refiner tells: every face with its place, size, noise level, seed and fate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .detection import Face
from .geometry import Crop
from .plan import Plan, RefineRequest

PAINTED = "painted"


@dataclass(frozen=True)
class Outcome:
    """What became of one job. shift: how far its colours were moved, RGB in 1/255."""

    number: int
    picture: int
    face: Face
    crop: Crop
    seed: int
    sigma: float = 0.0
    fate: str = PAINTED
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def line(self, many: bool) -> str:
        where = f"picture {self.picture + 1} " if many else ""
        x0, y0, x1, y1 = (round(edge) for edge in self.face.box)
        size = "{}x{} at {}x{}".format(self.crop.width, self.crop.height, *self.crop.target)
        text = (
            f"{where}face {self.number}: {self.fate}, {x1 - x0}x{y1 - y0} px at {x0},{y0}, score "
            f"{self.face.score:.2f}, crop {size} ({float(self.crop.scale):.2f}x), seed {self.seed}"
        )
        if self.fate == PAINTED and any(abs(value) >= 0.5 for value in self.shift):
            text += ", colours moved by {:+.0f} {:+.0f} {:+.0f}".format(*self.shift)
        return text


def write_report(
    request: RefineRequest,
    source: str,
    plan: Plan,
    outcomes: Sequence[Outcome],
    pictures: int,
    notes: Sequence[str],
    seconds: float,
) -> str:
    """Lines of text. source: where the faces come from, in words."""
    settings = request.settings
    painted = [outcome for outcome in outcomes if outcome.fate == PAINTED]
    lines = [
        f"faces      {len(plan.jobs) + len(plan.left_out)} found by {source}, {len(painted)} painted",
    ]
    if painted:
        sigmas = sorted({round(outcome.sigma, 3) for outcome in painted})
        levels = " and ".join(f"{sigma:g}" for sigma in sigmas)
        lines += [
            f"strength   {settings.strength:g} ({request.strength_mode}): starts at sigma {levels}",
            f"steps      {settings.steps} at guidance {request.guidance:g}",
            f"time       {seconds:.1f} s",
        ]
    many = pictures > 1
    lines += [outcome.line(many) for outcome in outcomes]
    for left in plan.left_out:
        where = f"picture {left.picture + 1} " if many else ""
        x, y = (round(edge) for edge in left.face.box[:2])
        lines.append(f"{where}left out at {x},{y}: {left.reason}")
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def headline(plan: Plan, outcomes: Sequence[Outcome]) -> str:
    """One line to stand under the node."""
    found = len(plan.jobs) + len(plan.left_out)
    painted = sum(outcome.fate == PAINTED for outcome in outcomes)
    if not found:
        return "No face found: the picture is as it came."
    return f"{painted} of {found} {'face' if found == 1 else 'faces'} painted"
