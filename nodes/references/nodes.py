"""Klein References: images of any size, in order, as one value for local models and remote services."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io, ui

from ..base import sockets
from ..base.notices import reports_errors, show_status
from ..base.pictures import BACKGROUNDS
from .pictures import MASK_USES
from .prepare import Preparation, prepare_references
from .report import describe, headline
from .sheet import draw_sheet
from .sizing import AUTO, POLICIES

SOCKETS = 10
_MASKS_SHOWN = 3  # and the page adds one: a mask for image 3 alone must have its socket


class KleinodReferences(io.ComfyNode):
    """Sizes, cuts and numbers reference images, and says what it did to each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        image = io.Image.Input(
            "image",
            tooltip="A reference, of any size. The prompt calls the first one image 1, the second image 2 "
            "and so on. A batch or a list counts as several, in its order.",
        )
        mask = io.Mask.Input(
            "mask",
            optional=True,
            tooltip="Which part of the image with the same number counts (white). An empty mask means all of "
            "it. See mask_use.",
        )
        place = io.Mask.Input(
            "place",
            optional=True,
            tooltip="Where on the new picture the image with the same number acts (white), of any size. An "
            "empty mask means everywhere. For local models.",
        )
        numbers = range(1, SOCKETS + 1)
        return io.Schema(
            node_id="KleinodReferences",
            display_name="Klein References",
            category="Kleinod",
            description="Brings 1 to 10 reference images, or batches of them, to sizes that Klein can use, "
            "for Klein Prompt, Klein Runware or Klein BFL. Nothing is enlarged, stretched or dropped in "
            "silence: the sheet and info show what became of each.",
            search_aliases=[
                "reference image",
                "reference latent",
                "edit image",
                "kontext",
                "multi image",
                "image batch",
                "contact sheet",
                "flux2 edit",
                "edit",
                "image stitch",
                "ip adapter",
                "reference strength",
                "reference weight",
                "identity",
                "likeness",
                "regional reference",
            ],
            is_input_list=True,
            inputs=[
                io.Autogrow.Input(
                    "images",
                    template=io.Autogrow.TemplateNames(image, [f"image_{n}" for n in numbers], min=1),
                    tooltip="The references in order; a new socket appears when the last one is connected.",
                ),
                io.Combo.Input(
                    "size",
                    options=list(POLICIES),
                    default=AUTO,
                    tooltip="How large references may be; none is ever enlarged. auto: as Black Forest Labs "
                    "do, one image up to 2024 x 2024 pixels, several up to 1024 x 1024 each. total "
                    "megapixels: all together; small ones leave their share to large ones. megapixels per "
                    "image: each. native: not scaled, only cut to multiples of 16. All but native keep sides "
                    "within 2048.",
                ),
                io.Float.Input(
                    "megapixels",
                    default=1.0,
                    min=0.05,
                    max=16.0,
                    step=0.05,
                    tooltip="For the two sizes that name megapixels; 1 is 1024 x 1024. Good totals: 1 for 8 "
                    "GB of graphics memory, 2 for 12 GB, 4 for 16 GB and more.",
                ),
                io.Int.Input(
                    "match_image",
                    default=1,
                    min=1,
                    max=100,
                    tooltip="The number of the image whose size the width and height outputs give: connect "
                    "them to Klein Sampler, and the edit lies exactly over that image.",
                ),
                io.Combo.Input(
                    "background",
                    options=list(BACKGROUNDS),
                    default="white",
                    advanced=True,
                    tooltip="What stands behind transparent parts, and outside masks.",
                ),
                io.Combo.Input(
                    "mask_use",
                    options=list(MASK_USES),
                    default=MASK_USES[0],
                    advanced=True,
                    tooltip="What a mask does. hide the rest: the background covers what is not white. crop: "
                    "the image is cut to the part that holds the mask. Or both.",
                ),
                io.Autogrow.Input(
                    "masks",
                    template=io.Autogrow.TemplateNames(
                        mask, [f"mask_{n}" for n in numbers], min=_MASKS_SHOWN
                    ),
                    optional=True,
                    tooltip="One mask for each image, where wanted: mask_2 belongs to image_2.",
                ),
                io.String.Input(
                    "weights",
                    default="",
                    optional=True,
                    tooltip="How much each image counts, from 0 to 2, with commas: 1, 0.5. 1, or nothing, is "
                    "the model as it is; 0 hides the image. For local models.",
                ),
                io.String.Input(
                    "steps",
                    default="",
                    optional=True,
                    tooltip="In which part of the steps each image acts, in percent, with commas: 0-60, "
                    "40-100. Nothing: in all. Early steps decide the composition, late ones details. For "
                    "local models.",
                ),
                io.Autogrow.Input(
                    "places",
                    template=io.Autogrow.TemplateNames(place, [f"place_{n}" for n in numbers], min=0),
                    optional=True,
                    tooltip="Where on the new picture each image acts: place_2 belongs to image_2. For local "
                    "models.",
                ),
            ],
            outputs=[
                sockets.References.Output(
                    display_name="references", tooltip="For Klein Prompt, Klein Runware and Klein BFL."
                ),
                io.Int.Output(display_name="width", tooltip="Width of image match_image as it is used."),
                io.Int.Output(display_name="height", tooltip="Height of image match_image as it is used."),
                io.Image.Output(
                    display_name="sheet",
                    tooltip="Every reference with its number, its size before and after, and what was lost.",
                ),
                io.String.Output(
                    display_name="info",
                    tooltip="The same in words, with tokens, cost of a step and memory.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @reports_errors()
    def execute(
        cls,
        images: dict[str, Any],
        size: list[str],
        megapixels: list[float],
        match_image: list[int],
        background: list[str],
        mask_use: list[str],
        masks: dict[str, Any] | None = None,
        weights: list[str] | None = None,
        steps: list[str] | None = None,
        places: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        # The node takes lists, so that a list of images makes one value; a widget is a list of one.
        preparation = Preparation(
            size[0], megapixels[0], match_image[0], background[0], mask_use[0],
            (weights or [""])[0], (steps or [""])[0],
        )  # fmt: skip
        references = prepare_references(images, preparation, masks, places)
        sheet = draw_sheet(references)
        show_status(cls.hidden, headline(references))
        return io.NodeOutput(
            references, *references.canvas, sheet, describe(references), ui=ui.PreviewImage(sheet)
        )
