"""How much each reference counts, in which steps, and where: text from the node to numbers for attention.

A weight is the number of times that a reference's tokens are there: attention to them is `softmax` with
`log(weight)` added, so 1 is the model as it is, 0 the model without the reference, and 2 two copies of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..base.errors import InputError
from ..base.references import MAX_WEIGHT, Reference
from ..base.sentences import say

_RANGE = re.compile(r"(\d+(?:\.\d+)?)\s*%?\s*-\s*(\d+(?:\.\d+)?)\s*%?")


def parse_weights(text: str, count: int) -> list[float]:
    """A weight for each of `count` images from "1, 0.5": missing and empty ones are 1."""
    weights = []
    for number, word in enumerate(_split(text, "weights", count), start=1):
        try:
            weights.append(float(word) if word else 1.0)
        except ValueError as error:
            raise InputError(
                say(
                    "weights says '%1' for image %2, but it must be a number from 0 to "
                    "%3: write one for each image, with commas between them, as in 1, 0.5.",
                    word,
                    number,
                    f"{MAX_WEIGHT:g}",
                )
            ) from error
    return weights + [1.0] * (count - len(weights))


def parse_steps(text: str, count: int) -> list[tuple[float, float]]:
    """From and to, as shares of the steps, for each of `count` images from "0-60, 40-100" in percent."""
    ranges = []
    for number, word in enumerate(_split(text, "steps", count), start=1):
        found = _RANGE.fullmatch(word)
        if word and not found:
            raise InputError(
                say(
                    "steps says '%1' for image %2, but it must be two percentages: write from and to "
                    "for each image, with commas between them, as in 0-60, 40-100.",
                    word,
                    number,
                )
            )
        ranges.append((float(found[1]) / 100, float(found[2]) / 100) if found else (0.0, 1.0))
    return ranges + [(0.0, 1.0)] * (count - len(ranges))


def _split(text: str, field: str, count: int) -> list[str]:
    words = [word.strip() for word in re.split(r"[,;\n]", text)]
    while words and not words[-1]:
        words.pop()
    if len(words) > count:
        raise InputError(
            say(
                "%1 names %2 images, and there are %3: write one entry for each image.",
                field,
                len(words),
                count,
            )
        )
    return words


@dataclass(frozen=True, eq=False)
class Weight:
    """What one reference weighs in one call. everywhere: for text and other references. place: float32
    `[N, cells]` in 0..1 over the picture's cells, for N pictures of a batch, or None for all of it."""

    everywhere: float
    place: Tensor | None = None

    @property
    def plain(self) -> bool:
        return self.everywhere == 1 and self.place is None


def weigh(item: Reference, step: int, steps: int, place: Tensor | None) -> Weight:
    """What a reference weighs in step `step` (from 0) of `steps`."""
    if not first_step(item, steps) <= step < last_step(item, steps):
        return Weight(0.0)
    return Weight(item.weight, place)


def first_step(item: Reference, steps: int) -> int:
    """The first step in which it acts."""
    return min(round(item.start * steps), steps - 1)


def last_step(item: Reference, steps: int) -> int:
    """The step before which it stops; it acts in one at least."""
    return max(round(item.end * steps), first_step(item, steps) + 1)


def fit_place(place: Tensor, height: int, width: int) -> Tensor:
    """A mask `[N, H, W]` as shares of the picture's cells, `[N, height * width]`, row by row."""
    return functional.adaptive_avg_pool2d(place[:, None].float(), (height, width)).flatten(1).clamp(0, 1)


def make_bias(
    weights: Sequence[Weight],
    tokens: Sequence[int],
    cells: int,
    keys: int,
    rows: slice,
    text: int,
    device: torch.device | None = None,
) -> Tensor:
    """What is added to attention's scores, float32 `[N or 1, 1, rows or 1, keys]`, made on `device`: with a
    place it is large, and asked for by every block.

    tokens: of each reference; they are the last of the keys. rows: of the queries, of which `text` are the
    prompt's, then `cells` the picture's; those of references follow, or are not there (references' keys may
    come from a cache). What is no cell of the picture reads a placed reference as the picture does on
    average: through the prompt it would reach every cell.
    """
    pictures = max([1, *(len(weight.place) for weight in weights if weight.place is not None)])
    placed = any(weight.place is not None for weight in weights)
    height = rows.stop - rows.start if placed else 1
    bias = torch.zeros(pictures, 1, height, keys, device=device)
    end = keys
    for weight, count in zip(reversed(weights), reversed(tokens), strict=True):
        columns = bias[..., end - count : end]
        end -= count
        columns += math.log(weight.everywhere) if weight.everywhere else -math.inf
        if weight.place is None or not weight.everywhere:
            continue
        place = weight.place.to(bias.device)
        shares = place.mean(dim=1, keepdim=True).repeat(1, height)
        first, last = max(rows.start, text), min(rows.stop, text + cells)
        if first < last:
            shares[:, first - rows.start : last - rows.start] = place[:, first - text : last - text]
        columns += shares.log()[:, None, :, None]
    return bias
