"""Klein Face Settings and Klein Face Refiner."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from ..base import sockets
from ..base.notices import reports_errors, show_status
from ..base.oom_advice import advise_faces
from ..base.values import FaceRefinement
from ..regions.painter import PaintInputs, send_crops
from ..regions.prompt_lines import PromptLines
from ..regions.request import BATCH_LIMIT, STRENGTH_MODE
from .choice import FaceFilter
from .detectors import list_detectors
from .engine import Source, refine_faces
from .inputs import list_refiner_inputs, list_settings_inputs
from .plan import SAME_SEED, RefineRequest
from .presets import KLEIN_BASE, PRESETS, choose_settings


class KleinodFaceSettings(io.ComfyNode):
    """Runware's `advancedFeatures.ultralytics` as one value, for the local refiner and the API alike."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KleinodFaceSettings",
            display_name="Klein Face Settings",
            category="Kleinod/faces",
            description="How faces are refined, as one value for Klein Face Refiner and Klein Runware alike: "
            "every field of Runware's ultralytics settings, with a preset that suits Klein.",
            search_aliases=[
                "ultralytics",
                "adetailer",
                "face detailer settings",
                "face restore",
                "faces",
                "facedetailer",
            ],
            inputs=list_settings_inputs(),
            outputs=[
                sockets.FaceRefinement.Output(
                    display_name="settings", tooltip="For Klein Face Refiner or Klein Runware."
                )
            ],
        )

    @classmethod
    @reports_errors()
    def execute(cls, preset: str, **fields: Any) -> io.NodeOutput:
        return io.NodeOutput(choose_settings(preset, FaceRefinement(**fields)))


class KleinodFaceRefiner(io.ComfyNode):
    """Finds faces, paints each at full size with the face itself as reference, and blends them in."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KleinodFaceRefiner",
            display_name="Klein Face Refiner",
            category="Kleinod/faces",
            description="Finds the faces of a picture and paints each anew at full size, with the face as it "
            "is as reference, so that it stays the same person. Outside the masks not a bit changes.",
            search_aliases=[
                "face detailer",
                "adetailer",
                "detailer",
                "face fix",
                "face restore",
                "ultralytics",
                "yolo",
                "facedetailer",
                "fix faces",
                "face inpaint",
                "upscale face",
                "enhance face",
                "mask",
            ],
            inputs=list_refiner_inputs(list_detectors()),
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="The picture with its faces refined; the very same one where there is no face.",
                ),
                io.Mask.Output(display_name="mask", tooltip="What was blended in: 0 is untouched."),
                io.BoundingBox.Output(
                    display_name="bounding_boxes", tooltip="The faces chosen, a list for each picture."
                ),
                io.Image.Output(
                    display_name="crops_before",
                    is_output_list=True,
                    tooltip="Every face as the model saw it; nothing comes where no face was painted.",
                ),
                io.Image.Output(
                    display_name="crops_after", is_output_list=True, tooltip="The same places afterwards."
                ),
                io.Image.Output(
                    display_name="preview",
                    tooltip="What was found: painted faces numbered, with score and crop; others grey.",
                ),
                io.String.Output(
                    display_name="info",
                    tooltip="Every face with its place, size, noise level and seed; why one was left out.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @reports_errors(advise_faces)
    def execute(
        cls, image, model, clip, vae, detector, seed, order, top_k, min_size, max_size, settings=None,
        positive=None, negative=None, face_prompts="", mask=None, bounding_boxes=None, references=None,
        acceleration=None, strength_mode=STRENGTH_MODE.default, batch_limit=BATCH_LIMIT.default,
        same_seed=SAME_SEED.default,
    ) -> io.NodeOutput:  # fmt: skip
        request = RefineRequest(
            settings or PRESETS[KLEIN_BASE], FaceFilter(order, top_k, min_size, max_size),
            PromptLines.read(face_prompts), seed, strength_mode, batch_limit, same_seed,
        )  # fmt: skip
        source = Source(detector, bounding_boxes, mask)
        inputs = PaintInputs(model, clip, vae, positive, negative, references, acceleration)
        made = refine_faces(image, source, inputs, request)
        show_status(cls.hidden, made.headline)
        before, after = send_crops(made.before), send_crops(made.after)
        return io.NodeOutput(made.image, made.mask, made.boxes, before, after, made.preview, made.info)
