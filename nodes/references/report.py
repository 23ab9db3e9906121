"""What was done to each reference, in words: the info text, and what a prompt's numbers point at."""

from __future__ import annotations

import re

from ..base.references import Reference, References
from .cost import count_tokens, describe_cost, step_factor
from .sizing import MAX_SIDE

MAX_AT_SERVICES = 4
"""The most that BFL's and Runware's services take for klein."""
MIN_CANVAS = 128
_MENTION = re.compile(r"\b(?:images?|pictures?)\s*#?\s*(\d{1,3})\b", re.IGNORECASE)


def describe_item(number: int, item: Reference) -> str:
    """One line: `image 2: 4000x3000 used as 1168x880, 0.5% cut off`."""
    words = [f"image {number}: {format_size(item.given)}"]
    if item.size == item.given:
        words.append(" used as it is")
    else:
        words.append(f" used as {format_size(item.size)}")
        words.append(f", {format_lost(item)}")
    return "".join(words) + "".join(f"; {note}" for note in (*item.notes, *item.weighing))


def describe(references: References) -> str:
    """The whole info text: a line for each picture, the cost, the size of an edit, warnings."""
    lines = [describe_item(number, item) for number, item in enumerate(references.items, start=1)]
    lines.append("")
    lines += describe_cost(references)
    width, height = references.canvas
    lines.append(f"width and height: {width}x{height}, the size of image {references.matched}")
    lines += [f"Warning: {text}" for text in list_warnings(references)]
    return "\n".join(lines)


def headline(references: References) -> str:
    """What fits under the node: number, tokens, cost, then the warnings."""
    count = len(references)
    factor = step_factor(count_tokens(references.canvas), references.tokens)
    first = f"{count} image{'s' * (count > 1)}, {references.tokens:,} tokens, a step x{factor:.1f}"
    return "\n".join([first, *(f"Warning: {text}" for text in list_warnings(references))])


def list_warnings(references: References) -> list[str]:
    warnings = []
    if len(references) > MAX_AT_SERVICES:
        warnings.append(
            f"{len(references)} references; BFL and Runware take at most {MAX_AT_SERVICES} for klein, and "
            "each one more costs time and memory."
        )
    side = max(references.canvas)
    if side > MAX_SIDE:
        warnings.append(
            f"image {references.matched} is {side} pixels long, but Klein Sampler makes pictures up to "
            f"{MAX_SIDE}: choose another size than native, or set width and height yourself."
        )
    if min(references.canvas) < MIN_CANVAS:
        warnings.append(
            f"image {references.matched} is {format_size(references.canvas)}, but Klein Sampler makes "
            f"pictures from {MIN_CANVAS} pixels on: set width and height yourself."
        )
    seen: dict[str, int] = {}
    for number, item in enumerate(references.items, start=1):
        first = seen.setdefault(item.digest, number)
        if first != number:
            warnings.append(f"image {number} is the same as image {first}.")
    return warnings


def unmatched_mentions(prompt: str, count: int) -> list[int]:
    """Numbers that a prompt speaks of ("image 3", "picture 3") beyond the `count` references there are."""
    numbers = {int(found) for found in _MENTION.findall(prompt)}
    return sorted(number for number in numbers if number > count or number == 0)


def describe_for_prompt(references: References, positive: str) -> str:
    """Lines for Klein Prompt's info: which image is which, and numbers that point at none."""
    parts = [f"image {number} {format_size(size)}" for number, size in enumerate(references.sizes, start=1)]
    lines = [f"references: {', '.join(parts)}; in the positive and the negative prompt"]
    for number in unmatched_mentions(positive, len(references)):
        lines.append(
            f"Warning: the prompt speaks of image {number}, but there "
            + ("is only image 1." if len(references) == 1 else f"are only images 1 to {len(references)}.")
        )
    return "\n".join(lines)


def format_size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def format_lost(item: Reference) -> str:
    """How much was cut off: `nothing cut off`, `0.5% cut off`."""
    if item.lost < 1e-9:
        return "nothing cut off"
    return f"{100 * item.lost:.1f}% cut off" if item.lost >= 0.0005 else "less than 0.1% cut off"
