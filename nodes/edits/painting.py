"""Inpainting and outpainting inside ComfyUI: plan, paint, and tell."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from ..base import seams
from ..base.errors import InputError
from ..base.pictures import check_mask, take_pictures
from ..base.sentences import Sentence, say
from ..model.engine import facts_of
from ..model.text_engine import encode_prompt, warn_of_unknown_words
from ..regions.blend import cut_out
from ..regions.components import resize_masks
from ..regions.painter import Painter, PaintInputs
from ..regions.prompts import RegionPrompts
from ..regions.result import PAINTED
from ..regions.sampler import CropSampler
from ..regions.waves import join_masks
from ..sampling.engine import context_width
from ..sampling.schedule import explain_no_steps
from .canvas import OutpaintRequest, fill_canvas, plan_canvas, plan_outpaint
from .paint_report import PaintedRegion, headline, write_report
from .plan import EditPlan, plan_inpaint
from .request import WHOLE, EditRequest, InpaintRequest

comfy = seams.modules("comfy.model_management")

logger = logging.getLogger("kleinod.edits")

INPAINT_PROMPT = "Image 1, complete and natural: what is missing goes on from what is around it."
OUTPAINT_PROMPT = "Image 1, seen wider: the same scene goes on beyond its edges in the same style and light."
"""What Klein is asked where nobody wrote a prompt: as an edit model it follows an instruction."""
NOTHING_TO_ADD = say(
    "No pixels are to be added: the picture is as it came. Raise left, top, right or bottom."
)


@dataclass(frozen=True)
class Edited:
    """image: IMAGE, result by result; the very tensor given where nothing was painted. mask: MASK, what may
    have changed. before, after: crops, each `[1, h, w, 3]`."""

    image: Tensor
    mask: Tensor
    before: list[Tensor]
    after: list[Tensor]
    info: str
    headline: Sentence


def inpaint(image: Tensor, mask: Tensor, inputs: PaintInputs, request: InpaintRequest) -> Edited:
    """Paint what MASK marks in IMAGE `[B, H, W, 1 to 4]`. Nothing is loaded where it marks nothing."""
    started = time.perf_counter()
    image, notes = take_pictures(image)
    masks, words = take_masks(mask, len(image), (image.shape[2], image.shape[1]))
    pixels, more = _suit_model(request, inputs.model, request.area == WHOLE)
    notes += words + more
    plan = plan_inpaint(masks, (image.shape[2], image.shape[1]), request, pixels)
    reason = Sentence("") if plan.regions else _explain_nothing(plan)
    return _paint(image, plan, inputs, request, INPAINT_PROMPT, notes, started, reason)


def outpaint(image: Tensor, inputs: PaintInputs, request: OutpaintRequest) -> Edited:
    """Paint what lies around IMAGE `[B, H, W, 1 to 4]` on a larger canvas."""
    started = time.perf_counter()
    image, notes = take_pictures(image)
    canvas = plan_canvas((image.shape[2], image.shape[1]), request)
    pixels, more = _suit_model(request, inputs.model, request.area == WHOLE)
    notes += more
    plan, reason = EditPlan(), NOTHING_TO_ADD
    if canvas.grows:
        plan = plan_outpaint(len(image), canvas, request, pixels)
        image = fill_canvas(image, canvas, request.fill, request.seed)
        notes.append(say("The old picture lies at %1 of the new one.", f"{canvas.left}/{canvas.top}"))
    return _paint(image, plan, inputs, request, OUTPAINT_PROMPT, notes, started, reason)


def take_masks(mask: Any, count: int, picture: tuple[int, int]) -> tuple[list[list[Tensor]], list[Sentence]]:
    """For each of `count` pictures of (width, height) its masks `[H, W]` in 0..1, and what was done to them.

    One mask serves all pictures; several go with as many pictures, or all with a single one.
    """
    check_mask(mask, "mask")
    masks = mask.detach().cpu().reshape(-1, *mask.shape[-2:])
    if len(masks) not in (1, count) and count > 1:
        raise InputError(
            say(
                "mask holds %1 masks, but image holds %2 pictures: connect one mask, or one each.",
                len(masks),
                count,
            )
        )
    notes = []
    rows, columns = masks.shape[1:]
    if bool((masks > 0).any()) and abs(columns * picture[1] - rows * picture[0]) > 0.02 * rows * picture[0]:
        notes.append(
            say(
                "mask is %1x%2, another shape than the picture's %3x%4, and was stretched over it.",
                columns,
                rows,
                *picture,
            )
        )
    masks = resize_masks(masks if masks.is_floating_point() else _as_share(masks), picture)
    if count == 1:
        return [list(masks)], notes
    each = list(masks)
    return [[each[index if len(each) > 1 else 0]] for index in range(count)], notes


def _as_share(masks: Tensor) -> Tensor:
    """Whole numbers count from 0 to 1 where they are no more, else to 255."""
    return masks.float() if int(masks.max()) <= 1 else masks.float() / 255


def _paint(
    image: Tensor,
    plan: EditPlan,
    inputs: PaintInputs,
    request: EditRequest,
    default: str,
    notes: list[Sentence],
    started: float,
    reason: Sentence,
) -> Edited:
    """image: `[B, H, W, C]`. plan: of `B * results` pictures. reason: why it has no regions."""
    height, width = image.shape[1:3]
    results: list[PaintedRegion] = []
    given = _continue(image, plan.beyond).repeat(request.results, 1, 1, 1) if plan.regions else image
    made, before, after = given, [], []
    runs = bool(request.painting.steps_run)
    if plan.regions and runs:
        # Cancelled while large masks were looked at: before models are loaded.
        comfy.model_management.throw_exception_if_processing_interrupted()
        painter = make_painter(inputs, request, len(plan.regions), (width, height), default)
        made = given.clone()
        results = painter.paint(made, plan.regions)
        notes += painter.notes
        before = [cut_out(given[region.picture], region.crop)[None] for region in plan.regions]
        after = [cut_out(made[region.picture], region.crop)[None] for region in plan.regions]
    elif plan.regions:
        why = explain_no_steps(request.steps, request.strength)
        reason = say("%1: the picture is as it came.", why)
    if not before:
        notes.append(reason)
    painted = [result.region for result in results if result.fate == PAINTED]
    mask = join_masks(painted, made.shape)[:, :height, :width].contiguous()
    if painted:
        image = made[:, :height, :width].contiguous()
    elif request.results > 1:
        image = image.repeat(request.results, 1, 1, 1)
        mask = mask.new_zeros(image.shape[:3])
    for note in notes:
        logger.info(note)
    seconds = time.perf_counter() - started
    pictures = len(image)
    return Edited(
        image=image,
        mask=mask,
        before=before,
        after=after,
        info=write_report(request, plan, results, mask, pictures, notes, seconds),
        headline=headline(plan, results, mask) if before else reason,
    )


def make_painter(
    inputs: PaintInputs, request: EditRequest, count: int, size: tuple[int, int], default: str
) -> Painter:
    """What paints `count` regions of pictures of (width, height). Raises InputError where model, VAE or
    prompts do not fit together."""
    sampler = CropSampler(
        inputs.model, inputs.vae, request.painting, count, size, inputs.references, inputs.acceleration
    )

    def encode(text: str, field: str) -> Any:
        field = "prompt" if field == "positive_prompt" else field
        made = encode_prompt(inputs.clip, text, field)[0]
        if text != default:
            prompts.notes.extend(warn_of_unknown_words(inputs.clip, text, field))
        return made

    prompts = RegionPrompts(encode, context_width(inputs.model), "regions", "region_prompts")
    prompts.share(request.prompt, request.negative, (inputs.positive, inputs.negative), default)
    return Painter(sampler, prompts)


def _continue(image: Tensor, beyond: tuple[int, int]) -> Tensor:
    """`[B, H, W, C]` with its last column and row drawn out to the right and below."""
    if beyond == (0, 0):
        return image
    moved = image.movedim(-1, 1)
    return functional.pad(moved, (0, beyond[0], 0, beyond[1]), mode="replicate").movedim(1, -1).contiguous()


def _suit_model(request: EditRequest, model: Any, whole: bool) -> tuple[float, list[Sentence]]:
    """Pixels at which this model paints, and a word about what it cannot do."""
    facts = facts_of(model)
    if facts is None:
        return request.pixels, []
    notes = []
    pixels = request.pixels
    if facts.family == "nano":
        side = min(facts.native_size)
        pixels = float(side * side * (3 if whole else 2) / 2)
        notes.append(say("klein-nano paints about %1x%1 pixels, so megapixels was not used.", side))
    if facts.distilled and request.guidance > 1:
        notes.append(
            say(
                "This model is distilled to work without guidance; guidance %1 burns colours. Set it to 1.",
                f"{request.guidance:g}",
            )
        )
    return pixels, notes


def _explain_nothing(plan: EditPlan) -> Sentence:
    if plan.left_out:
        return say("Every region is left out by [SKIP] in region_prompts: the picture is as it came.")
    return say("mask is empty: the picture is as it came. Draw over what is to change.")
