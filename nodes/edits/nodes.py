"""Klein Keep: an edited picture in which everything the edit did not mean to change is the original's."""

from __future__ import annotations

import torch
from comfy import model_management
from comfy.utils import ProgressBar
from comfy_api.v0_0_2 import io, ui
from torch import Tensor

from ..base.errors import InputError
from ..base.field_inputs import make_inputs
from ..base.notices import reports_errors, show_status
from ..base.pictures import check_mask, take_pictures
from ..regions.components import resize_masks
from .keep import FIELDS, KeepSettings, Kept, keep
from .report import describe, headline
from .sheet import draw_sheet


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
                f"{name} holds {len(batch)} pictures, but the other input {count}: connect as many, or one."
            )
    if masks is not None:
        masks = resize_masks(masks, (original.shape[2], original.shape[1]))
    bar = ProgressBar(count)
    kept = []
    for index in range(count):
        model_management.throw_exception_if_processing_interrupted()
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
