"""What Klein Sampler tells about settings that run but seldom give what was hoped for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..base.acceleration import FittedTable
from ..base.flux2 import CELL
from ..base.schedulers import KLEINOD_FAST
from ..base.sentences import Sentence, say
from ..model.facts import KleinFacts
from .checks import list_areas
from .fast import why_plain
from .request import SamplingRequest
from .schedule import MU_AUTO

LARGE_TOKENS = 4300
"""Above this BFL's fit of mu changes its form: a little more than 1 MP."""
NANO_SIDE = 256


def list_warnings(request: SamplingRequest, facts: KleinFacts | None) -> list[Sentence]:
    """Settings that spoil the picture. `facts` are None for a model nobody knows."""
    if facts is not None and facts.distilled and request.guided:
        return [
            say(
                "This model is distilled to work without guidance; guidance %1 doubles the time and burns "
                "the picture. Set it to 1.",
                f"{request.guidance:g}",
            )
        ]
    return []


# What other models read in a conditioning and FLUX.2 [klein] does not.
_UNREAD = {
    "guidance": lambda name: say(
        "FLUX.2 [klein] does not read the guidance in %1 (of FluxGuidance): the guidance of this node "
        "counts.",
        name,
    ),
    "unclip_conditioning": lambda name: say(
        "FLUX.2 [klein] does not read the picture in %1 (of unCLIPConditioning): connect pictures to Klein "
        "References.",
        name,
    ),
    "gligen": lambda name: say(
        "FLUX.2 [klein] does not read the places in %1 (of GLIGENTextBoxApply): say in the prompt what is "
        "where.",
        name,
    ),
    "concat_latent_image": lambda name: say(
        "FLUX.2 [klein] does not read the picture to fill in %1 (of InpaintModelConditioning): all of it is "
        "painted anew without the noise mask; use Klein Inpaint, or switch noise_mask on.",
        name,
    ),
}


def warn_of_unread(
    conditionings: Mapping[str, Iterable[Any] | None], has_mask: bool, reads_guidance: bool
) -> list[Sentence]:
    """What nodes for other models have put into a conditioning, by the name of its input, and is lost here.

    has_mask: the latent says what may change. reads_guidance: the model has a guidance embedding.
    """
    read = {
        name for name, is_read in (("guidance", reads_guidance), ("concat_latent_image", has_mask)) if is_read
    }
    said: list[Sentence] = []
    for name, conditioning in conditionings.items():
        held = {
            key for _, options in conditioning or () for key, value in options.items() if value is not None
        }
        said += [explain(name) for key, explain in _UNREAD.items() if key in held - read]
    return said


def warn_of_areas(conditionings: Mapping[str, Iterable[Any] | None], size: tuple[int, int]) -> list[Sentence]:
    """Where areas set in pixels lie on a picture of (width, height): core's node divides by 8, whatever the
    model's cells are."""
    return [
        say(
            "An area in %1 covers %2x%3 pixels at %4,%5: ConditioningSetArea counts in cells of 8 pixels and "
            "FLUX.2 [klein] has cells of 16. For the place you set use ConditioningSetAreaPercentage, or set "
            "half of x, y, width and height.",
            name,
            width,
            height,
            left,
            top,
        )  # fmt: skip
        for name, conditioning in conditionings.items()
        for left, top, width, height in list_areas(conditioning, size)
    ]


def list_notes(
    request: SamplingRequest,
    facts: KleinFacts | None,
    size: tuple[int, int],
    reads_negative: bool = False,
    table: FittedTable | None = None,
) -> list[Sentence]:
    """Settings worth knowing about, for pictures of `size` (width, height) pixels. reads_negative: the model
    came with a node that runs the negative prompt whatever guidance says. table: what Kleinod Fast goes by.
    """
    notes = []
    if not request.guided and reads_negative:
        notes.append(
            say(
                "Guidance 1, but a node on the model (such as Normalized Attention Guidance) has the "
                "negative prompt run in every step: it counts, and each step costs as much as with guidance."
            )
        )
    elif not request.guided:
        notes.append(say("Guidance 1: the negative prompt is not used, and each step costs half."))
    if size[0] * size[1] > LARGE_TOKENS * CELL**2 and request.mu == MU_AUTO:
        notes.append(
            say("Above 1 MP mu grows: if the picture turns blurred or patterned, try capped above 1 MP.")
        )
    if table is not None:
        fitted = table.describe()
        notes.append(say("Kleinod Fast goes by what Klein Calibrate fitted to this model: %1.", fitted))
    elif request.recipe.solver is KLEINOD_FAST:
        notes += [why for why in [why_plain(request.steps, request.guidance)] if why]
    if facts is None:
        return notes
    steps, guidance = facts.recommended_steps, facts.recommended_guidance
    if not facts.distilled and not request.guided and not reads_negative:
        loose = f"{guidance:g}"
        notes.append(say("A Base model follows the prompt loosely at guidance 1; it is made for %1.", loose))
    if not facts.distilled and request.steps < 10:
        notes.append(say("%1 steps are few for a Base model; take 20 to %2.", request.steps, steps))
    if facts.distilled and request.steps > 2 * steps:
        notes.append(say("A distilled model is done after %1 steps; more of them mostly cost time.", steps))
    size_note = note_size(facts, size)
    return [*notes, size_note] if size_note else notes


def note_size(facts: KleinFacts | None, size: tuple[int, int]) -> Sentence:
    """For a picture larger than its model can draw; "" for others. To be said before the first step: on a
    processor such a picture takes minutes."""
    if facts is None or facts.family != "nano" or max(size) <= NANO_SIDE:
        return Sentence("")
    side = facts.native_size[0]
    return say(
        "klein-nano draws %1 to %2 pixels; larger pictures fall apart and take long: set width and height to "
        "%1, or pick real weights in Klein Loader.",
        side,
        NANO_SIDE,
    )


def note_image_guidance(request: SamplingRequest, shown: bool) -> list[Sentence]:
    """What image guidance costs. shown: the prompt carries references."""
    if request.image_guidance == 1:
        return []
    factor = f"{request.image_guidance:g}"
    if not shown:
        return [say("image_guidance is %1, but positive carries no references: it was not used.", factor)]
    return [say("Image guidance %1: every step also runs the prompt without its references.", factor)]


def note_acceleration(facts: KleinFacts | None) -> list[Sentence]:
    """For runs that are accelerated."""
    if facts is not None and facts.distilled:
        return [
            say(
                "A distilled model has no steps to spare: %1 steps without acceleration are faster and "
                "better.",
                facts.recommended_steps,
            )
        ]
    return []
