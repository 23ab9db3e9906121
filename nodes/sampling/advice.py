"""What Klein Sampler tells about settings that run but seldom give what was hoped for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..base.acceleration import FittedTable
from ..base.flux2 import CELL
from ..base.schedulers import KLEINOD_FAST
from ..model.facts import KleinFacts
from .fast import why_plain
from .request import SamplingRequest
from .schedule import MU_AUTO

LARGE_TOKENS = 4300
"""Above this BFL's fit of mu changes its form: a little more than 1 MP."""
NANO_SIDE = 256


def list_warnings(request: SamplingRequest, facts: KleinFacts | None) -> list[str]:
    """Settings that spoil the picture. `facts` are None for a model nobody knows."""
    if facts is not None and facts.distilled and request.guided:
        return [
            f"This model is distilled to work without guidance; guidance {request.guidance:g} doubles the "
            "time and burns the picture. Set it to 1."
        ]
    return []


# What other models read in a conditioning and FLUX.2 [klein] does not: a name for it, a node that puts it
# there, and what to do instead.
_UNREAD = {
    "guidance": ("guidance", "FluxGuidance", "the guidance of this node counts"),
    "unclip_conditioning": ("picture", "unCLIPConditioning", "connect pictures to Klein References"),
    "gligen": ("places", "GLIGENTextBoxApply", "say in the prompt what is where"),
    "concat_latent_image": (
        "picture to fill",
        "InpaintModelConditioning",
        "all of it is painted anew without the noise mask; use Klein Inpaint, or switch noise_mask on",
    ),
}


def warn_of_unread(
    conditionings: Mapping[str, Iterable[Any] | None], has_mask: bool, reads_guidance: bool
) -> list[str]:
    """What nodes for other models have put into a conditioning, by the name of its input, and is lost here.

    has_mask: the latent says what may change. reads_guidance: the model has a guidance embedding.
    """
    read = {
        name for name, is_read in (("guidance", reads_guidance), ("concat_latent_image", has_mask)) if is_read
    }
    said = []
    for name, conditioning in conditionings.items():
        held = {
            key for _, options in conditioning or () for key, value in options.items() if value is not None
        }
        for key, (what, node, instead) in _UNREAD.items():
            if key in held - read:
                said.append(f"FLUX.2 [klein] does not read the {what} in {name} (of {node}): {instead}.")
    return said


def list_notes(
    request: SamplingRequest,
    facts: KleinFacts | None,
    size: tuple[int, int],
    reads_negative: bool = False,
    table: FittedTable | None = None,
) -> list[str]:
    """Settings worth knowing about, for pictures of `size` (width, height) pixels. reads_negative: the model
    came with a node that runs the negative prompt whatever guidance says. table: what Kleinod Fast goes by.
    """
    notes = []
    if not request.guided and reads_negative:
        notes.append(
            "Guidance 1, but a node on the model (such as Normalized Attention Guidance) has the negative "
            "prompt run in every step: it counts, and each step costs as much as with guidance."
        )
    elif not request.guided:
        notes.append("Guidance 1: the negative prompt is not used, and each step costs half.")
    if size[0] * size[1] > LARGE_TOKENS * CELL**2 and request.mu == MU_AUTO:
        notes.append("Above 1 MP mu grows: if the picture turns blurred or patterned, try capped above 1 MP.")
    if table is not None:
        notes.append(f"Kleinod Fast goes by what Klein Calibrate fitted to this model: {table.describe()}.")
    elif request.recipe.solver is KLEINOD_FAST:
        notes += [why for why in [why_plain(request.steps, request.guidance)] if why]
    if facts is None:
        return notes
    steps, guidance = facts.recommended_steps, facts.recommended_guidance
    if not facts.distilled and not request.guided and not reads_negative:
        notes.append(f"A Base model follows the prompt loosely at guidance 1; it is made for {guidance:g}.")
    if not facts.distilled and request.steps < 10:
        notes.append(f"{request.steps} steps are few for a Base model; take 20 to {steps}.")
    if facts.distilled and request.steps > 2 * steps:
        notes.append(f"A distilled model is done after {steps} steps; more of them mostly cost time.")
    size_note = note_size(facts, size)
    return [*notes, size_note] if size_note else notes


def note_size(facts: KleinFacts | None, size: tuple[int, int]) -> str:
    """For a picture larger than its model can draw; "" for others. To be said before the first step: on a
    processor such a picture takes minutes."""
    if facts is None or facts.family != "nano" or max(size) <= NANO_SIDE:
        return ""
    side = facts.native_size[0]
    return (
        f"klein-nano draws {side} to {NANO_SIDE} pixels; larger pictures fall apart and take long: set width "
        f"and height to {side}, or pick real weights in Klein Loader."
    )


def note_image_guidance(request: SamplingRequest, shown: bool) -> list[str]:
    """What image guidance costs. shown: the prompt carries references."""
    if request.image_guidance == 1:
        return []
    if not shown:
        return [
            f"image_guidance is {request.image_guidance:g}, but positive carries no references: it was not "
            "used."
        ]
    return [
        f"Image guidance {request.image_guidance:g}: every step also runs the prompt without its references."
    ]


def note_acceleration(facts: KleinFacts | None) -> list[str]:
    """For runs that are accelerated."""
    if facts is not None and facts.distilled:
        return [
            f"A distilled model has no steps to spare: {facts.recommended_steps} steps without acceleration "
            "are faster and better."
        ]
    return []
