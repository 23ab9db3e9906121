"""What was done to each reference, in words: the info text, and what a prompt's numbers point at."""

from __future__ import annotations

import re

from ..base.references import Reference, References
from ..base.sentences import Sentence, join, say
from .cost import count_tokens, describe_cost, step_factor
from .sizing import MAX_SIDE

MAX_AT_SERVICES = 4
"""The most that BFL's and Runware's services take for klein."""
MIN_CANVAS = 128
_MENTION = re.compile(r"\b(?:images?|pictures?)\s*#?\s*(\d{1,3})\b", re.IGNORECASE)


def describe_item(number: int, item: Reference) -> Sentence:
    """One line: `image 2: 4000x3000 used as 1168x880, 0.5% cut off`."""
    name = say("image %1", number)
    if item.size == item.given:
        used = [say("%1 used as it is", format_size(item.given))]
    else:
        used = [say("%1 used as %2", format_size(item.given), format_size(item.size)), format_lost(item)]
    return join("; ", [join(": ", [name, join(", ", used)]), *map(Sentence, item.notes), *item.weighing])


def describe(references: References) -> str:
    """The whole info text: a line for each picture, the cost, the size of an edit, warnings."""
    lines = [describe_item(number, item) for number, item in enumerate(references.items, start=1)]
    lines.append(Sentence(""))
    lines += describe_cost(references)
    width, height = references.canvas
    lines.append(say("width and height: %1 (the size of image %2)", f"{width}x{height}", references.matched))
    lines += [say("Warning: %1", text) for text in list_warnings(references)]
    return "\n".join(lines)


def headline(references: References) -> Sentence:
    """What fits under the node: number, tokens, cost, then the warnings."""
    count = len(references)
    factor = step_factor(count_tokens(references.canvas), references.tokens)
    first = [
        say("1 image") if count == 1 else say("%1 images", count),
        say("%1 tokens", f"{references.tokens:,}"),
        say("a step x%1", f"{factor:.1f}"),
    ]
    warnings = (say("Warning: %1", text) for text in list_warnings(references))
    return join("\n", [join(", ", first), *warnings])


def list_warnings(references: References) -> list[Sentence]:
    warnings = []
    if len(references) > MAX_AT_SERVICES:
        warnings.append(
            say(
                "%1 references; BFL and Runware take at most %2 for klein, and each one more costs time and "
                "memory.",
                len(references),
                MAX_AT_SERVICES,
            )
        )
    side = max(references.canvas)
    if side > MAX_SIDE:
        warnings.append(
            say(
                "image %1 is %2 pixels long, but Klein Sampler makes pictures up to %3: choose another size "
                "than native, or set width and height yourself.",
                references.matched,
                side,
                MAX_SIDE,
            )
        )
    if min(references.canvas) < MIN_CANVAS:
        warnings.append(
            say(
                "image %1 is %2, but Klein Sampler makes pictures from %3 pixels on: set width and height "
                "yourself.",
                references.matched,
                format_size(references.canvas),
                MIN_CANVAS,
            )
        )
    seen: dict[str, int] = {}
    for number, item in enumerate(references.items, start=1):
        first = seen.setdefault(item.digest, number)
        if first != number:
            warnings.append(say("image %1 is the same as image %2.", number, first))
    return warnings


def unmatched_mentions(prompt: str, count: int) -> list[int]:
    """Numbers that a prompt speaks of ("image 3", "picture 3") beyond the `count` references there are."""
    numbers = {int(found) for found in _MENTION.findall(prompt)}
    return sorted(number for number in numbers if number > count or number == 0)


def describe_for_prompt(references: References, positive: str) -> str:
    """Lines for Klein Prompt's info: which image is which, and numbers that point at none."""
    parts = [
        say("image %1 %2", number, format_size(size)) for number, size in enumerate(references.sizes, start=1)
    ]
    both = say("in the positive and the negative prompt")
    lines = [say("references: %1", join("; ", [join(", ", parts), both]))]
    for number in unmatched_mentions(positive, len(references)):
        count = len(references)
        lines.append(
            say("Warning: the prompt speaks of image %1, but there is only image 1.", number)
            if count == 1
            else say(
                "Warning: the prompt speaks of image %1, but there are only images 1 to %2.", number, count
            )
        )
    return "\n".join(lines)


def format_size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def format_lost(item: Reference) -> Sentence:
    """How much was cut off: `nothing cut off`, `0.5% cut off`."""
    if item.lost < 1e-9:
        return say("nothing cut off")
    if item.lost < 0.0005:
        return say("less than 0.1% cut off")
    return say("%1 cut off", f"{100 * item.lost:.1f}%")
