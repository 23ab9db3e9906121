"""What of an acceleration this ComfyUI can carry out. The rest is left out and said: no picture fails for
want of a shortcut.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..base import graph_capture, seams
from ..base.sentences import Sentence
from ..base.values import Acceleration

BLOCK_METHODS = ("first_block", "dual_block", "tea")


def keep_available(
    acceleration: Acceleration | None, model: Any
) -> tuple[Acceleration | None, list[Sentence]]:
    """The settings without what is off here, None where nothing is left; and a sentence for each thing off.

    model: the MODEL (ModelPatcher) they are for.
    """
    if acceleration is None:
        return None, []
    if seams.missing(seams.ACCELERATION):
        return None, [seams.missing(seams.ACCELERATION)]
    off: list[Sentence] = []
    captured = graph_capture.captures_blocks(model.model.diffusion_model)
    if acceleration.method in BLOCK_METHODS:
        reason = seams.missing(seams.BLOCK_CACHES) or _captured(captured, seams.BLOCK_CACHES)
        if reason:
            off.append(reason)
            acceleration = replace(
                acceleration, acceleration="none", fb_cache=False, tea_cache=False, db_cache=False
            )
    if acceleration.reference_cache != "off":
        reason = seams.missing(seams.REFERENCE_KEYS) or _captured(captured, seams.REFERENCE_KEYS)
        if reason:
            off.append(reason)
            acceleration = replace(acceleration, reference_cache="off")
    return acceleration, off


def _captured(captured: bool, feature: seams.Feature) -> Sentence:
    return graph_capture.explain(feature) if captured else Sentence("")
