"""What became of each region."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic

from ..base.sentences import Sentence, join, say
from .geometry import Box
from .waves import AnyRegion

PAINTED = say("painted")
NOT_A_NUMBER = say("kept as it was (the painting came out as not-a-number)")


@dataclass(frozen=True)
class Painted(Generic[AnyRegion]):
    """What became of one region. sigma: the noise level it began with. fate: PAINTED, or why not. shift: how
    far its colours were moved, RGB in 1/255."""

    region: AnyRegion
    sigma: float = 0.0
    fate: Sentence = PAINTED
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)


def describe(
    painted: Painted[AnyRegion], name: Sentence, box: Box, many: bool, more: Sequence[Sentence] = ()
) -> Sentence:
    """One line. name: of the region, with its number. box: of what was painted, in pixels of the picture.
    many: the run has several pictures. more: what else is known of it, said behind its place."""
    region = painted.region
    x0, y0, x1, y1 = (round(edge) for edge in box)
    crop = "{}x{} at {}x{}".format(region.crop.width, region.crop.height, *region.crop.target)
    first = join(": ", [name, painted.fate])
    parts = [say("picture %1", region.picture + 1), first] if many else [first]
    parts.append(say("%1 px at %2", f"{x1 - x0}x{y1 - y0}", f"{x0}/{y0}"))
    parts += more
    parts.append(say("crop %1 (%2)", crop, f"{float(region.crop.scale):.2f}x"))
    parts.append(say("seed %1", region.seed))
    if painted.fate == PAINTED and any(abs(value) >= 0.5 for value in painted.shift):
        parts.append(say("colours moved by %1", "{:+.0f} {:+.0f} {:+.0f}".format(*painted.shift)))
    return join(", ", parts)


def describe_run(
    strength: float, mode: str, sigmas: Iterable[float], steps: int, guidance: float, seconds: float
) -> list[str]:
    """Rows of a report. sigmas: the noise level that each region began with; alike ones are named once."""
    levels = " + ".join(f"{sigma:g}" for sigma in sorted({round(sigma, 3) for sigma in sigmas}))
    began = say("%1 (%2): starts at sigma %3", f"{strength:g}", mode, levels)
    return [
        write_row(say("strength"), began),
        write_row(say("steps"), say("%1 at guidance %2", steps, f"{guidance:g}")),
        write_row(say("time"), say("%1 s", f"{seconds:.1f}")),
    ]


def write_notes(notes: Sequence[Sentence]) -> list[str]:
    """The last lines of a report."""
    return [f"{say('note')}: {note}" for note in notes]


def write_row(title: Sentence, text: Sentence) -> str:
    """The title in a column of its own."""
    return f"{title:<11}{text}"
