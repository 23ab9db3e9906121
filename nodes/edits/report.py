"""What Klein Keep says of each picture, in numbers."""

from __future__ import annotations

from collections.abc import Sequence

from ..base.sentences import Sentence, join, say
from .keep import Kept
from .registration import Registration

NOTHING = "edited and original are the same"
STILL = 0.05
"""Pixels below which a picture counts as not moved."""


def headline(kept: Sequence[Kept]) -> Sentence:
    """One line for the node."""
    refused = [one for one in kept if one.refusal]
    if len(kept) == 1:
        return kept[0].refusal or _sum_up(kept[0])
    if refused:
        counts = len(refused), len(kept)
        return say("%1 of %2 pictures could not be kept: %3", *counts, refused[0].refusal)
    shares = [one.share for one in kept]
    least, most = f"{min(shares):.1%}", f"{max(shares):.1%}"
    return join(", ", [say("%1 pictures", len(kept)), say("%1 to %2 from the edit", least, most)])


def describe(kept: Sequence[Kept]) -> str:
    """A paragraph a picture; of one picture without a number."""
    paragraphs = [_describe_one(one) for one in kept]
    if len(kept) > 1:
        paragraphs = [say("picture %1", number) + f"\n{text}" for number, text in enumerate(paragraphs, 1)]
    return "\n\n".join(paragraphs)


def _describe_one(kept: Kept) -> str:
    if kept.refusal:
        return say("nothing was done: %1", kept.refusal)
    height, width = kept.original.shape[:2]
    lines = [
        (say("changed"), _sum_up(kept)),
        (say("place"), _describe_place(kept.place, width, height)),
        (
            say("colours"),
            say(
                "what did not change differed by delta E %1, fitted by %2",
                f"{kept.before:.2f}",
                f"{kept.after:.2f}",
            ),
        ),
        (say("kept"), say("%1 of the original, bit for bit", f"{1 - kept.share:.1%}")),
    ]
    return "\n".join(f"{title:<9}{text}" for title, text in lines)


def _sum_up(kept: Kept) -> Sentence:
    if not kept.share:
        return say("nothing changed that an eye would see: the original, bit for bit")
    return say("%1 of the picture comes from the edit", f"{kept.share:.1%}")


def _describe_place(place: Registration, width: int, height: int) -> Sentence:
    if place.displacement(width, height) < STILL:
        return say("not moved")
    zoom = [f"{(scale - 1) * 100:+.2f}%" for scale in place.scale]
    across, down = place.shift
    words = [
        say("moved by %1 and %2 pixels", f"{across:+.2f}", f"{down:+.2f}"),
        say("zoomed by %1 and %2", *zoom),
        say("taken back (%1 of the detail found again)", f"{place.found:.0%}"),
    ]
    return join(", ", words)
