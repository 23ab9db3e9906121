"""Klein Inpaint, Klein Outpaint and Klein Keep: edits that leave the rest of a picture bit for bit."""

from __future__ import annotations

import torch
from comfy_api.v0_0_2 import io, ui
from torch import Tensor

from ..base import seams
from ..base.errors import InputError
from ..base.field_inputs import make_inputs
from ..base.notices import reports_errors, show_status
from ..base.oom_advice import advise_edit
from ..base.pictures import check_mask, take_pictures
from ..base.sentences import say
from ..regions.components import resize_masks
from ..regions.painter import PaintInputs, send_crops
from ..regions.prompt_lines import PromptLines
from ..regions.request import BATCH_LIMIT, CROP_REFERENCE, STRENGTH_MODE
from .canvas import FILL, OutpaintRequest
from .inputs import list_inpaint_inputs, list_outpaint_inputs, list_outputs
from .keep import FIELDS, KeepSettings, Kept, keep
from .painting import Edited, inpaint, outpaint
from .report import describe, headline
from .request import CONTEXT, REGIONS, STRENGTH, InpaintRequest
from .sheet import draw_sheet

comfy = seams.modules("comfy.model_management", "comfy.utils")


class KleinodInpaint(io.ComfyNode):
    """Paints what a mask marks, with the place as it is as first reference; the rest stays bit for bit."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KleinodInpaint",
            display_name="Klein Inpaint",
            category="Kleinod/edits",
            description="Paints anew what a mask marks, at full size and with its surroundings as reference. "
            "Outside the mask not a bit of the picture changes.",
            search_aliases=[
                "inpaint",
                "fill",
                "mask",
                "masked edit",
                "replace object",
                "remove object",
                "crop and stitch",
                "inpaint crop",
                "generative fill",
                "detailer",
                "differential diffusion",
            ],
            inputs=list_inpaint_inputs(),
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="The picture with its regions painted; the very same where the mask is empty.",
                ),
                *list_outputs(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @reports_errors(advise_edit)
    def execute(
        cls, image, mask, model, vae, prompt, area, strength, steps, guidance, seed, context, megapixels,
        grow, feather, edge_unit, colour_match, results, clip=None, negative_prompt="", region_prompts="",
        positive=None, negative=None, references=None, acceleration=None, regions=REGIONS.default,
        crop_reference=CROP_REFERENCE.default, strength_mode=STRENGTH_MODE.default,
        batch_limit=BATCH_LIMIT.default,
    ) -> io.NodeOutput:  # fmt: skip
        request = InpaintRequest(
            prompt=prompt, negative=negative_prompt, seed=seed, steps=steps, guidance=guidance,
            strength=strength, strength_mode=strength_mode, megapixels=megapixels, colour_match=colour_match,
            results=results, batch_limit=batch_limit, crop_reference=crop_reference, area=area,
            context=context, grow=grow, feather=feather, edge_unit=edge_unit, regions=regions,
            prompts=PromptLines.read(region_prompts),
        )  # fmt: skip
        inputs = PaintInputs(model, clip, vae, positive, negative, references, acceleration)
        return _give(cls, inpaint(image, mask, inputs, request))


class KleinodOutpaint(io.ComfyNode):
    """Grows a picture beyond its edges; the old one stays bit for bit outside a stated overlap."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KleinodOutpaint",
            display_name="Klein Outpaint",
            category="Kleinod/edits",
            description="Paints what lies beyond the edges of a picture: by pixels a side, to a shape or "
            "to a size. The old picture stays bit for bit, but for a narrow overlap.",
            search_aliases=[
                "outpaint",
                "uncrop",
                "expand image",
                "extend canvas",
                "pad image for outpainting",
                "zoom out",
                "aspect ratio",
                "fill",
            ],
            inputs=list_outpaint_inputs(),
            outputs=[
                io.Image.Output(display_name="image", tooltip="The larger picture."),
                *list_outputs(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @reports_errors(advise_edit)
    def execute(
        cls, image, model, vae, prompt, extend, left, top, right, bottom, aspect, width, height, anchor,
        overlap, area, steps, guidance, seed, megapixels, colour_match, results, clip=None,
        negative_prompt="", positive=None, negative=None, references=None, acceleration=None,
        fill=FILL.default, context=CONTEXT.default, strength=STRENGTH.default,
        crop_reference=CROP_REFERENCE.default, strength_mode=STRENGTH_MODE.default,
        batch_limit=BATCH_LIMIT.default,
    ) -> io.NodeOutput:  # fmt: skip
        request = OutpaintRequest(
            prompt=prompt, negative=negative_prompt, seed=seed, steps=steps, guidance=guidance,
            strength=strength, strength_mode=strength_mode, megapixels=megapixels, colour_match=colour_match,
            results=results, batch_limit=batch_limit, crop_reference=crop_reference, extend=extend, left=left,
            top=top, right=right, bottom=bottom, aspect=aspect, width=width, height=height, anchor=anchor,
            overlap=overlap, fill=fill, area=area, context=context,
        )  # fmt: skip
        inputs = PaintInputs(model, clip, vae, positive, negative, references, acceleration)
        return _give(cls, outpaint(image, inputs, request))


def _give(node: type[io.ComfyNode], made: Edited) -> io.NodeOutput:
    show_status(node.hidden, made.headline)
    return io.NodeOutput(made.image, made.mask, send_crops(made.before), send_crops(made.after), made.info)


class KleinodKeep(io.ComfyNode):
    """Original and edit in; the original with only the change laid over it out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KleinodKeep",
            display_name="Klein Keep",
            category="Kleinod/edits",
            description="Takes from an edited picture only what was meant to change. Edits by any model, "
            "local or remote, shift, zoom and tint the whole picture a little: this measures and undoes "
            "that, finds the change, and leaves the rest of the original as it was, bit for bit.",
            search_aliases=[
                "keep the rest",
                "colour shift",
                "color match",
                "edit composite",
                "preserve original",
                "identity",
                "align images",
                "change mask",
                "difference",
                "unchanged",
                "mask",
                "inpaint",
            ],
            inputs=[
                io.Image.Input("original", tooltip="The picture before the edit. A batch goes with a batch."),
                io.Image.Input(
                    "edited",
                    tooltip="The picture after the edit, by any model or service. Its size may differ.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="What may change (white), where you know it: nothing outside of it will. Without "
                    "a mask the change is found.",
                ),
                *make_inputs(FIELDS),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image", tooltip="The original with the change, in the original's size."
                ),
                io.Mask.Output(
                    display_name="mask", tooltip="What comes from the edit. Where it is black no bit changed."
                ),
                io.Image.Output(
                    display_name="sheet", tooltip="Original, edit, result, and where the edit shows."
                ),
                io.String.Output(
                    display_name="info",
                    tooltip="How far the edit moved, zoomed and tinted the picture, and how much is kept.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @reports_errors()
    def execute(
        cls,
        original: Tensor,
        edited: Tensor,
        mask: Tensor | None = None,
        place: str = KeepSettings.place,
        colour_match: float = KeepSettings.colour_match,
        sensitivity: float = KeepSettings.sensitivity,
        grow: int = KeepSettings.grow,
        feather: int = KeepSettings.feather,
    ) -> io.NodeOutput:
        seams.require(seams.KEEP)
        settings = KeepSettings(place, colour_match, sensitivity, grow, feather)
        kept = keep_batch(original, edited, mask, settings)
        sheet = draw_sheet(kept)
        show_status(cls.hidden, headline(kept))
        return io.NodeOutput(
            torch.stack([one.picture for one in kept]),
            torch.stack([one.mask for one in kept]),
            sheet,
            describe(kept),
            ui=ui.PreviewImage(sheet),
        )


def keep_batch(original: Tensor, edited: Tensor, mask: Tensor | None, settings: KeepSettings) -> list[Kept]:
    """`keep` for each picture of two batches `[B, H, W, C]`, one of which may be a single picture."""
    original, _ = take_pictures(original, "original")
    edited, _ = take_pictures(edited, "edited")
    masks = None
    if mask is not None:
        check_mask(mask, "mask")
        masks = mask.detach().reshape(-1, *mask.shape[-2:])
    count = max(len(original), len(edited))
    for name, batch in (("original", original), ("edited", edited), ("mask", masks)):
        if batch is not None and len(batch) not in (1, count):
            raise InputError(
                say(
                    "%1 holds %2 pictures, but the other input %3: connect as many, or one.",
                    name,
                    len(batch),
                    count,
                )
            )
    if masks is not None:
        masks = resize_masks(masks, (original.shape[2], original.shape[1]))
    bar = comfy.utils.ProgressBar(count)
    kept = []
    for index in range(count):
        comfy.model_management.throw_exception_if_processing_interrupted()
        one = keep(
            _pick(original, index).cpu(),
            _pick(edited, index).cpu(),
            None if masks is None else _pick(masks, index).cpu(),
            settings,
        )
        kept.append(one)
        bar.update(1)
    return kept


def _pick(batch: Tensor, index: int) -> Tensor:
    return batch[index if len(batch) > 1 else 0]
