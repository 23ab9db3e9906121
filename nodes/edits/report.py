"""What Klein Keep says of each picture, in numbers."""

from __future__ import annotations

from collections.abc import Sequence

from .keep import Kept
from .registration import Registration

NOTHING = "edited and original are the same"
STILL = 0.05
"""Pixels below which a picture counts as not moved."""


def headline(kept: Sequence[Kept]) -> str:
    """One line for the node."""
    refused = [one for one in kept if one.refusal]
    if len(kept) == 1:
        return kept[0].refusal or _sum_up(kept[0])
    if refused:
        return f"{len(refused)} of {len(kept)} pictures could not be kept: {refused[0].refusal}"
    shares = [one.share for one in kept]
    return f"{len(kept)} pictures, {min(shares):.1%} to {max(shares):.1%} from the edit"


def describe(kept: Sequence[Kept]) -> str:
    """A paragraph a picture; of one picture without a number."""
    paragraphs = [_describe_one(one) for one in kept]
    if len(kept) > 1:
        paragraphs = [f"picture {number}\n{text}" for number, text in enumerate(paragraphs, 1)]
    return "\n\n".join(paragraphs)


def _describe_one(kept: Kept) -> str:
    if kept.refusal:
        return f"nothing was done: {kept.refusal}"
    height, width = kept.original.shape[:2]
    lines = [
        ("changed", _sum_up(kept)),
        ("place", _describe_place(kept.place, width, height)),
        ("colours", f"what did not change differed by delta E {kept.before:.2f}, fitted by {kept.after:.2f}"),
        ("kept", f"{1 - kept.share:.1%} of the original, bit for bit"),
    ]
    return "\n".join(f"{title:<9}{text}" for title, text in lines)


def _sum_up(kept: Kept) -> str:
    if not kept.share:
        return "nothing changed that an eye would see: the original, bit for bit"
    return f"{kept.share:.1%} of the picture comes from the edit"


def _describe_place(place: Registration, width: int, height: int) -> str:
    if place.displacement(width, height) < STILL:
        return "not moved"
    zoom = [f"{(scale - 1) * 100:+.2f}%" for scale in place.scale]
    across, down = place.shift
    return (
        f"moved by {across:+.2f} and {down:+.2f} pixels, zoomed by {zoom[0]} and {zoom[1]} "
        f"({place.found:.0%} of the detail found again), taken back"
    )
