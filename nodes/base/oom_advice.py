"""What to change when memory runs out: a sentence for each node that fills it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .flux2 import CELL

_LARGE_SIDE = 512
_FP8 = "choose fp8_e4m3fn as weight_dtype in Klein Loader"


def advise_sampling(
    width: int, height: int, positive: Any = None, latent: Any = None, image: Any = None,
    acceleration: str = "none", acceleration_settings: Any = None, **others: Any,
) -> str:  # fmt: skip
    """Takes the inputs of a node that samples; what is connected decides what is named."""
    count = count_references(positive)
    if image is not None:
        source, width, height = "image", image.shape[2], image.shape[1]
    elif latent is not None:
        *_, rows, columns = latent["samples"].shape
        source, width, height = "latent", columns * CELL, rows * CELL
    else:
        source = ""
    what = f"painting {width}x{height}" + _with_references(count)
    remedies = [f"connect a smaller {source}" if source else "lower width and height"]
    if max(width, height) <= _LARGE_SIDE:
        remedies = []
    if count:
        remedies.append("connect fewer references or lower their megapixels in Klein References")
    if acceleration != "none" or acceleration_settings is not None:
        remedies.append("set acceleration to none")
    return compose(what, *remedies, _FP8)


def advise_faces(
    settings: Any = None, references: Any = None, acceleration: Any = None, **others: Any
) -> str:
    """Takes the inputs of Klein Face Refiner, which has tried single faces by then."""
    size = f" at inpaint_size {settings.inpaint_size}" if settings is not None else ""
    less = "lower inpaint_size in Klein Face Settings"
    return _advise_painting(f"painting faces{size}", less, references, acceleration)


def advise_edit(
    megapixels: float = 1.0, references: Any = None, acceleration: Any = None, **others: Any
) -> str:
    """Takes the inputs of Klein Inpaint or Klein Outpaint, which has tried single regions by then."""
    what = f"painting regions at {megapixels:g} megapixels"
    return _advise_painting(what, "lower megapixels", references, acceleration)


def _advise_painting(what: str, less: str, references: Any, acceleration: Any) -> str:
    remedies = [less]
    if references is not None:
        remedies.append("connect fewer references")
    if acceleration is not None:
        remedies.append("unplug acceleration")
    return compose(what, *remedies, _FP8)


def advise_prompt(references: Any = None, **others: Any) -> str:
    """Takes the inputs of Klein Prompt."""
    cpu = "set text_encoder_device in Klein Loader to cpu"
    if references is None:
        return compose("reading the prompt", cpu, "choose an fp8 file as text_encoder")
    return compose("reading the prompt and its references", "lower megapixels in Klein References", cpu)


def advise_loading(diffusion_model: str, **others: Any) -> str:
    """Takes the inputs of Klein Loader."""
    return compose(
        f'loading "{diffusion_model}"',
        "close other programs",
        "choose an fp8 or GGUF file as diffusion_model and text_encoder",
    )


def compose(what: str, *remedies: str) -> str:
    """ "Out of memory while WHAT. This, that, or that one." """
    first, *others = remedies[:3]
    words = ", ".join([first, *others[:-1]]) + (f", or {others[-1]}" if others else "")
    return f"Out of memory while {what}. {words[0].upper()}{words[1:]}."


def count_references(conditioning: Any) -> int:
    """Reference images in the first entry of a CONDITIONING."""
    if not isinstance(conditioning, Sequence) or not conditioning:
        return 0
    options = conditioning[0][1]
    return len(options.get("reference_latents", ())) if isinstance(options, Mapping) else 0


def _with_references(count: int) -> str:
    return f" with {count} {'reference' if count == 1 else 'references'}" if count else ""
