"""The plot of the acceleration bench."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from typing import Any

from PIL import Image


def draw(scores: Sequence[Any], steps: int, converged: bool) -> Image.Image:
    """Median likeness (bar down to the 5th percentile) over times less work, by kind of way."""
    from kleinod.nodes.study.plot import Point, draw_plot

    from tools.bench.acceleration import low

    points = []
    for score in scores:
        values = score.psnr_converged if converged else score.psnr
        if score.name.startswith(("edits", "res_multistep")):
            continue
        if score.family == "uncached" and not converged:
            continue
        series, label = _series(score.name)
        # What differs in more than one dial lies on no curve.
        on_curve = series != "other caches of ours" and "as it comes" not in score.name
        points.append(Point(score.speed, statistics.median(values), series, label, low(values), on_curve))
    target = "a picture of 200 steps" if converged else f"the uncached picture of {steps} steps"
    return draw_plot(
        points,
        f"klein-nano, {steps} steps, guidance 4",
        f"Median of {len(scores[0].psnr)} pictures, bar down to the 5th percentile. Against {target}.",
        "PSNR, dB (higher: closer)",
        "times less work (blocks really run)",
    )


def _series(name: str) -> tuple[str, str]:
    for words in ("Euler", "DPM++ 2M", "Kleinod Fast", "res_multistep"):
        if name.startswith(words):
            return words, re.sub(r"\D", "", name.split(",")[1])
    for words in ("EasyCache", "LazyCache"):
        if name.startswith(words):
            return words, ""
    if name in ("forecast low", "forecast medium", "forecast high", "forecast highest"):
        return "forecast (presets)", name.split()[1]
    return ("uncached", "") if name == "uncached" else ("other caches of ours", name)
