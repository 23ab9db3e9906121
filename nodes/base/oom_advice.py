"""What to change when memory runs out: a sentence for each node that fills it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .flux2 import CELL
from .sentences import Sentence, join, say

_LARGE_SIDE = 512
_FP8 = say("choose fp8_e4m3fn as weight_dtype in Klein Loader")


def advise_sampling(
    width: int, height: int, positive: Any = None, latent: Any = None, image: Any = None,
    acceleration: str = "none", acceleration_settings: Any = None, **others: Any,
) -> Sentence:  # fmt: skip
    """Takes the inputs of a node that samples; what is connected decides what is named."""
    count = count_references(positive)
    remedy = say("lower width and height")
    if image is not None:
        remedy, width, height = say("connect a smaller image"), image.shape[2], image.shape[1]
    elif latent is not None:
        *_, rows, columns = latent["samples"].shape
        remedy, width, height = say("connect a smaller latent"), columns * CELL, rows * CELL
    size = f"{width}x{height}"
    remedies = [remedy] if max(width, height) > _LARGE_SIDE else []
    if count:
        remedies.append(say("connect fewer references or lower their megapixels in Klein References"))
    if acceleration != "none" or acceleration_settings is not None:
        remedies.append(say("set acceleration to none"))
    if count == 1:
        return compose(say("painting %1 with 1 reference", size), *remedies, _FP8)
    if count:
        return compose(say("painting %1 with %2 references", size, count), *remedies, _FP8)
    return compose(say("painting %1", size), *remedies, _FP8)


def advise_faces(
    settings: Any = None, references: Any = None, acceleration: Any = None, **others: Any
) -> Sentence:
    """Takes the inputs of Klein Face Refiner, which has tried single faces by then."""
    what = say("painting faces")
    if settings is not None:
        what = say("painting faces at inpaint_size %1", settings.inpaint_size)
    return _advise_painting(what, say("lower inpaint_size in Klein Face Settings"), references, acceleration)


def advise_edit(
    megapixels: float = 1.0, references: Any = None, acceleration: Any = None, **others: Any
) -> Sentence:
    """Takes the inputs of Klein Inpaint or Klein Outpaint, which has tried single regions by then."""
    what = say("painting regions at %1 megapixels", f"{megapixels:g}")
    return _advise_painting(what, say("lower megapixels"), references, acceleration)


def _advise_painting(what: Sentence, less: Sentence, references: Any, acceleration: Any) -> Sentence:
    remedies = [less]
    if references is not None:
        remedies.append(say("connect fewer references"))
    if acceleration is not None:
        remedies.append(say("unplug acceleration"))
    return compose(what, *remedies, _FP8)


def advise_prompt(references: Any = None, **others: Any) -> Sentence:
    """Takes the inputs of Klein Prompt."""
    cpu = say("set text_encoder_device in Klein Loader to cpu")
    if references is None:
        return compose(say("reading the prompt"), cpu, say("choose an fp8 file as text_encoder"))
    what = say("reading the prompt and its references")
    return compose(what, say("lower megapixels in Klein References"), cpu)


def advise_loading(diffusion_model: str, **others: Any) -> Sentence:
    """Takes the inputs of Klein Loader."""
    return compose(
        say('loading "%1"', diffusion_model),
        say("close other programs"),
        say("choose an fp8 or GGUF file as diffusion_model and text_encoder"),
    )


def compose(what: Sentence, *remedies: Sentence) -> Sentence:
    """ "Out of memory while WHAT. What helps: this; that; that one." """
    helps = say("What helps: %1.", join("; ", remedies[:3]))
    return join(" ", [say("Out of memory while %1.", what), helps])


def count_references(conditioning: Any) -> int:
    """Reference images in the first entry of a CONDITIONING."""
    if not isinstance(conditioning, Sequence) or not conditioning:
        return 0
    options = conditioning[0][1]
    return len(options.get("reference_latents", ())) if isinstance(options, Mapping) else 0
