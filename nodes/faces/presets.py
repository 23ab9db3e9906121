"""Starting points of Klein Face Settings: what the API's defaults mean on Klein, said in Klein's own numbers.

The API's defaults come from Stable Diffusion. On Klein guidance 8 burns colours, 5 pixels of mask are nothing
on a large face, and a detector asked for 0.9 leaves out half of a crowd. Strength 0.55, read as a noise
level, is what 0.4 is on Stable Diffusion: half way through its schedule noise already makes 0.6 of the
mixture.
"""

from __future__ import annotations

from dataclasses import replace

from ..base.fields import check_choice
from ..base.values import MASK_PERCENT, FaceRefinement

API = "API defaults"
KLEIN_BASE = "Klein"
KLEIN_DISTILLED = "Klein distilled"
CUSTOM = "custom"
PRESET_NAMES = (KLEIN_BASE, KLEIN_DISTILLED, API, CUSTOM)

_KLEIN = FaceRefinement(
    confidence=0.35,
    mask_padding=12,
    mask_blur=15,
    strength=0.55,
    guidance=4.0,
    mask_unit=MASK_PERCENT,
)
PRESETS = {
    KLEIN_BASE: _KLEIN,
    KLEIN_DISTILLED: replace(_KLEIN, steps=4, guidance=1.0),
    API: FaceRefinement(),
}


# What a preset decides; prompts, sizes and the rest are always the user's own.
FIELDS = ("confidence", "mask_padding", "mask_blur", "mask_unit", "strength", "steps", "guidance")


def choose_settings(preset: str, custom: FaceRefinement) -> FaceRefinement:
    """`custom` with the preset's numbers in `FIELDS`. Raises ValueError for an unknown preset."""
    if preset == CUSTOM:
        return custom
    check_choice("preset", preset, PRESET_NAMES)
    return replace(custom, **{name: getattr(PRESETS[preset], name) for name in FIELDS})
