"""What is known about a loaded Klein: family, variant, sizes, and the settings it was trained for.

Sizes come from the weights' shapes. Base and distilled share every shape, so only a name, the file's metadata
or the user can tell them apart; `decided_by` always says which it was. Recommended settings are Black Forest
Labs' own defaults: 50 steps at guidance 4 for Base; 4 steps at guidance 1, both fixed, for distilled and KV.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..base.errors import InputError
from ..base.flux2 import DEFAULT_STEPS, FAMILIES
from ..base.sentences import Sentence, join, say

VARIANTS = ("auto", "base", "distilled")
FAMILY_NAMES = (*(family.name for family in FAMILIES), "nano", "other")

_TITLES = {
    **{family.name: f"FLUX.2 [klein] {family.title}" for family in FAMILIES},
    "nano": say("klein-nano (a tiny built-in model of a small drawn world)"),
    "other": say("FLUX.2 [klein] of unusual size"),
}
_LICENCES = {
    **{family.name: family.licence for family in FAMILIES},
    "nano": say("the pack's own (see its model card)"),
    "other": say("see the page the weights came from"),
}
_SLOW_PARAMETERS = (
    500_000_000  # a processor of 200 GFLOP/s takes 5 s for this many on 1024x1024, twice a step
)
_QUICK_PIXELS = 512 * 512
_METADATA_KEYS = ("modelspec.title", "modelspec.architecture", "general.name")


@dataclass(frozen=True)
class KleinFacts:
    """Facts about a Klein diffusion model; travel with the ModelPatcher as attachment "kleinod_facts".

    `hidden` and `context_width` are channel counts, `parameters` counts weights (0 = unknown), `native_size`
    is (width, height) in pixels. A `recommended_guidance` of 1 means: no negative pass. `own_attention`
    counts the blocks for which the file chooses the attention.
    """

    variant: str
    decided_by: str
    family: str
    hidden: int
    depth_double: int
    depth_single: int
    context_width: int
    parameters: int = 0
    dtype: str = "unknown"
    recommended_steps: int = 50
    recommended_guidance: float = 4.0
    native_size: tuple[int, int] = (1024, 1024)
    key_value_cached: bool = False
    own_attention: int = 0

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS[1:]:
            raise ValueError(f"variant is base or distilled, not {self.variant!r}.")
        if self.family not in FAMILY_NAMES:
            raise ValueError(f"family is one of {', '.join(FAMILY_NAMES)}, not {self.family!r}.")

    def sampler_settings(self) -> dict[str, int | float]:
        """Widgets of Klein Sampler as this model wants them; of Base fewer steps than it is made for, which
        are hardly told apart and take half the time."""
        width, height = self.native_size
        steps = min(self.recommended_steps, DEFAULT_STEPS)
        return {"width": width, "height": height, "steps": steps, "guidance": self.recommended_guidance}

    @property
    def distilled(self) -> bool:
        return self.variant == "distilled"

    @property
    def title(self) -> str:
        if self.family == "nano":
            return _TITLES["nano"]
        after = "," if self.family == "other" else ""
        return f"{_TITLES[self.family]}{after} {'KV ' if self.key_value_cached else ''}{self.variant}"

    @property
    def licence(self) -> str:
        return _LICENCES[self.family]


def _says_base(text: str) -> bool:
    # "base model: klein" speaks of what a fine-tune started from.
    return re.search(r"(?<![a-z])base(?![a-z]|[-_ ]*model)|[49]b[-_ ]?base(?![a-z])", text) is not None


def _says_distilled(text: str) -> bool:
    return re.search(r"distill|[-_ ]kv(?![a-z])|turbo|(?<![0-9])4[-_ ]?steps?(?![a-z])", text) is not None


def decide_variant(
    choice: str = "auto", file_name: str = "", metadata: Mapping[str, str] | None = None
) -> tuple[str, str]:
    """(variant, how it was decided in words): the user's choice, then metadata, then the file's name.

    The official names say "base" for Base and nothing for distilled, so an official name without "base" is
    distilled. A name that tells nothing is taken as Base, the model this pack is made for.
    """
    if choice not in VARIANTS:
        raise ValueError(f"variant is one of {', '.join(VARIANTS)}, not {choice!r}.")
    if choice != "auto":
        return choice, say("chosen in the variant input")
    for key in _METADATA_KEYS:
        text = str((metadata or {}).get(key, "")).lower()
        if _says_base(text) or _says_distilled(text):
            return ("base" if _says_base(text) else "distilled"), say("the file's metadata (%1)", key)
    stem = PurePosixPath(file_name.replace("\\", "/")).name.lower()
    if _says_base(stem):
        return "base", say('the file name says "base"')
    if _says_distilled(stem):
        return "distilled", say("the file name says so")
    if re.search(r"klein[-_ ]?[49]b", stem):
        return "distilled", say('an official name without "base"')
    return "base", say("assumed, since neither name nor metadata tell: set variant if the model is distilled")


def count_blocks(keys: Mapping[str, object], prefix: str) -> int:
    """One more than the highest index in keys like `prefix.INDEX.`."""
    found = (re.match(rf"{re.escape(prefix)}\.(\d{{1,4}})\.", key) for key in keys)
    return max((int(match.group(1)) for match in found if match), default=-1) + 1


def count_parameters(hidden: int, depth_double: int, depth_single: int, context_width: int) -> int:
    """Weights of a Klein of these sizes; it has no biases, and all blocks share one modulation."""
    shared = hidden * (128 + context_width + 256 + 128) + hidden * hidden * (1 + 6 + 6 + 3 + 2)
    double = 26 * hidden * hidden + 4 * 128
    single = 13 * hidden * hidden + 2 * 128
    return shared + depth_double * double + depth_single * single


def facts_from_sizes(
    hidden: int,
    depth_double: int,
    depth_single: int,
    context_width: int,
    *,
    file_name: str = "",
    metadata: Mapping[str, str] | None = None,
    choice: str = "auto",
    parameters: int = 0,
    dtype: str = "unknown",
    own_attention: int = 0,
) -> KleinFacts:
    """Facts from the four sizes that make a Klein; `parameters` 0 counts them from the sizes."""
    variant, decided_by = decide_variant(choice, file_name, metadata)
    distilled = variant == "distilled"
    sizes = (hidden, depth_double, depth_single)
    known = next((family for family in FAMILIES if family.sizes == sizes), None)
    stem = PurePosixPath(file_name.replace("\\", "/")).name.lower()
    return KleinFacts(
        variant=variant,
        decided_by=decided_by,
        family=known.name if known else "other",
        hidden=hidden,
        depth_double=depth_double,
        depth_single=depth_single,
        context_width=context_width,
        parameters=parameters or count_parameters(hidden, depth_double, depth_single, context_width),
        dtype=dtype,
        recommended_steps=4 if distilled else 50,
        recommended_guidance=1.0 if distilled else 4.0,
        key_value_cached=known is not None
        and known.has_key_value_variant
        and re.search(r"[-_ ]kv(?![a-z])", stem) is not None,
        own_attention=own_attention,
    )


def facts_from_shapes(
    shapes: Mapping[str, Sequence[int]],
    *,
    context_width: int | None = None,
    file_name: str = "",
    metadata: Mapping[str, str] | None = None,
    choice: str = "auto",
    parameters: int = 0,
    dtype: str = "unknown",
    own_attention: int = 0,
) -> KleinFacts:
    """Facts from a checkpoint's key -> shape map (BFL's key names, without prefix).

    `context_width` overrides the width read from `txt_in` (packed 4-bit weights show half of it).
    """
    try:
        hidden, width = shapes["img_in.weight"][0], shapes["txt_in.weight"][1]
    except (KeyError, IndexError) as error:
        name = file_name or say("The model")
        raise InputError(say("%1 has no img_in and txt_in weights: it is not a Klein.", name)) from error
    return facts_from_sizes(
        hidden,
        count_blocks(shapes, "double_blocks"),
        count_blocks(shapes, "single_blocks"),
        context_width or width,
        file_name=file_name,
        metadata=metadata,
        choice=choice,
        parameters=parameters,
        dtype=dtype,
        own_attention=own_attention,
    )


def nano_facts(hidden: int, depth_double: int, depth_single: int, context_width: int) -> KleinFacts:
    """klein-nano: undistilled, drawn at 128 pixels, at its best with 28 steps at guidance 4."""
    return KleinFacts(
        variant="base",
        decided_by=say("built in"),
        family="nano",
        hidden=hidden,
        depth_double=depth_double,
        depth_single=depth_single,
        context_width=context_width,
        parameters=count_parameters(hidden, depth_double, depth_single, context_width),
        dtype="fp32",
        recommended_steps=28,
        recommended_guidance=4.0,
        native_size=(128, 128),
    )


def notice_processor(facts: KleinFacts | None, device: str, size: tuple[int, int] = (1024, 1024)) -> Sentence:
    """What to expect of a large model on the processor; "" where a graphics card runs it, or it is small.

    device: "cpu", "cuda" and so on, as PyTorch calls it. size: (width, height) in pixels.
    """
    if facts is None or device != "cpu" or facts.parameters < _SLOW_PARAMETERS:
        return Sentence("")
    if size[0] * size[1] > _QUICK_PIXELS:
        return say(
            "No graphics card is in use, so the processor does the work: expect minutes for each step at "
            "%1x%2. It is no error; start with 256x256, or let Klein Runware or Klein BFL draw.",
            *size,
        )
    return say(
        "No graphics card is in use, so the processor does the work: expect up to a minute for each step at "
        "%1x%2. It is no error; leave it time, or let Klein Runware or Klein BFL draw.",
        *size,
    )


def describe(facts: KleinFacts) -> list[Sentence]:
    """Lines of the loader's info about the diffusion model."""
    guidance = f"{facts.recommended_guidance:g}"
    if facts.distilled:
        advice = say(
            "4 steps at guidance 1, both fixed by the distillation; the negative prompt has no effect"
        )
    elif facts.recommended_steps > 28:
        steps = facts.recommended_steps
        advice = say("%1 steps at guidance %2 (20 to 28 steps for a quicker picture)", steps, guidance)
    else:
        advice = say("%1 steps at guidance %2", facts.recommended_steps, guidance)
    weights = [
        *([say("%1 parameters", f"{facts.parameters:,}")] if facts.parameters else []),
        Sentence(facts.dtype),
        say("width %1", facts.hidden),
        say("%1 double and %2 single blocks", facts.depth_double, facts.depth_single),
        say("text width %1", facts.context_width),
    ]
    attention = say(
        "Attention: the file itself chooses another than the default for %1 of %2 blocks (int8); ComfyUI "
        "follows it on graphics cards that can, which changes the picture a little.",
        facts.own_attention,
        facts.depth_double + facts.depth_single,
    )
    return [
        say("Model: %1", facts.title),
        say("Variant: %1 (%2)", facts.variant, facts.decided_by),
        say("Weights: %1", join(", ", weights)),
        *([attention] if facts.own_attention else []),
        say("Recommended: %1", join("; ", [advice, say("made for %1x%2", *facts.native_size)])),
        say("Licence: %1", facts.licence),
    ]
