"""From a drawing to the graph of our own nodes that makes it, as ComfyUI's API takes graphs."""

from __future__ import annotations

from typing import Any

from ..base.flux2 import MAX_SEED
from .drawing import Drawing

SUBFOLDER = "kleinod-api"
"""Below ComfyUI's temporary folder: where references wait for Load Image."""
RESULT = "result"
"""The id of the node whose picture is the answer."""


def name_picture(reference: str) -> str:
    """A reference of the store by the name Load Image has for it."""
    return f"{SUBFOLDER}/{reference} [temp]"


def build_graph(drawing: Drawing, ticket: str) -> dict[str, Any]:
    """Node id -> {class_type, inputs}. `ticket` makes the last node's inputs unlike any before, so that it
    runs even where everything before it comes from ComfyUI's cache.
    """
    graph: dict[str, Any] = {}

    def add(node_id: str, kind: str, **inputs: Any) -> str:
        graph[node_id] = {"class_type": kind, "inputs": inputs, "_meta": {"title": f"API: {node_id}"}}
        return node_id

    add(
        "loader", "KleinodLoader", diffusion_model=drawing.model, weight_dtype="default",
        text_encoder="automatic", text_encoder_device="default", vae="automatic", variant=drawing.variant,
    )  # fmt: skip
    model: list[Any] = ["loader", 0]
    if drawing.loras:
        add(
            "loras", "KleinodLoraStack", model=model, rows=drawing.loras, lora="none", weight=1.0,
            stage="both", missing_files="stop with an error", stage_boundary="share of steps",
            boundary_at=0.5, apply="into the weights",
        )  # fmt: skip
        model = ["loras", 0]
    texts: dict[str, Any] = {}
    pictures = {}
    for number, reference in enumerate(drawing.references, 1):
        add(f"picture {number}", "LoadImage", image=name_picture(reference))
        pictures[f"images.image_{number}"] = [f"picture {number}", 0]
    if drawing.mask:
        del pictures["images.image_1"]  # what is painted is the first reference as it is
        pictures = {f"images.image_{place}": link for place, link in enumerate(pictures.values(), 1)}
    if pictures:
        add(
            "references", "KleinodReferences", size="auto", megapixels=1.0, match_image=1,
            background="white", mask_use="hide the rest", **pictures,
        )  # fmt: skip
        texts = {"references": ["references", 0], "vae": ["loader", 2]}
    if drawing.mask:
        add("mask", "LoadImage", image=name_picture(drawing.mask))
        others = {"references": texts["references"]} if texts else {}
        add(
            "inpaint", "KleinodInpaint", image=["picture 1", 0], mask=["mask", 1], model=model,
            vae=["loader", 2], clip=["loader", 1], prompt=drawing.prompt, negative_prompt=drawing.negative,
            area="whole picture" if drawing.stand_in else "crop", strength=1.0, steps=drawing.steps,
            guidance=drawing.guidance, seed=drawing.seed % (MAX_SEED + 1), context=1.5, megapixels=1.0,
            grow=6, feather=6, edge_unit="percent of the region", colour_match=1.0, results=1, **others,
        )  # fmt: skip
        add(RESULT, "PreviewImage", images=["inpaint", 0], ticket=ticket)
        return graph
    add(
        "prompt", "KleinodPrompt", clip=["loader", 1], positive=drawing.prompt, negative=drawing.negative,
        **texts,
    )  # fmt: skip
    more: dict[str, Any] = {}
    if drawing.acceleration is not None:
        add("acceleration", "KleinodAcceleration", **drawing.acceleration)
        more["acceleration_settings"] = ["acceleration", 0]
    add(
        "sampler", "KleinodSampler", model=model, positive=["prompt", 0], negative=["prompt", 1],
        vae=["loader", 2], width=drawing.canvas[0], height=drawing.canvas[1], steps=drawing.steps,
        guidance=drawing.guidance, seed=drawing.seed % (MAX_SEED + 1), scheduler=drawing.scheduler,
        results=1, mu="auto", strength=0.6, strength_mode="noise-level", acceleration=drawing.level, **more,
    )  # fmt: skip
    image: list[Any] = ["sampler", 0]
    if drawing.faces is not None:
        add("face settings", "KleinodFaceSettings", **drawing.faces)
        add(
            "faces", "KleinodFaceRefiner", image=image, model=model, clip=["loader", 1], vae=["loader", 2],
            detector=drawing.detector, seed=drawing.seed % (MAX_SEED + 1), order="left to right", top_k=0,
            min_size=0, max_size=0, settings=["face settings", 0], positive=["prompt", 0],
            negative=["prompt", 1], face_prompts="", strength_mode="noise-level", batch_limit=4,
            same_seed=False,
        )  # fmt: skip
        image = ["faces", 0]
    add(RESULT, "PreviewImage", images=image, ticket=ticket)
    return graph
