"""Which family a MODEL, a file or a LoRA is of: FLUX.2, which Kleinod runs, or one that only looks like it.

FLUX 3, ERNIE-Image, Lens and others work in the latents of FLUX.2's autoencoder, so the latent format alone
says nothing. FLUX 3's names are those of Black Forest Labs' files of October 2026: early blocks for each
stream (image, image_cond, txt; video, audio or act in models that are not for pictures), then single blocks
with separate projections.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from .sentences import say

FLUX3_IMAGE = "FLUX 3 Image Klein"
FLUX3_OTHER = say("a FLUX 3 model for video, sound or actions")
FLUX3_WAY = say(
    "ComfyUI runs it with nodes of its own (Load Diffusion Model, and Load CLIP with type flux3; Templates "
    "has whole graphs under flux3)"
)

_EARLY = re.compile(r"(?:content_mode_blocks|early_stream_modulations)[._](image|video|audio|act)")
# Of FLUX 3's single blocks alone: FLUX.1 and FLUX.2 keep one matrix for all of these.
_SINGLE = re.compile(r"single_blocks[._]\d+[._](?:[qkv]_proj|attn_out|mlp_in|mlp_out)(?![a-z])")


def find_flux3(names: Iterable[str]) -> str:
    """What sort of FLUX 3 has weights, modules or LoRA keys of these names, in words; "" for others."""
    single = False
    for name in names:
        early = _EARLY.search(name)
        if early is not None:
            return FLUX3_IMAGE if early[1] == "image" else FLUX3_OTHER
        single = single or _SINGLE.search(name) is not None
    return FLUX3_IMAGE if single else ""


def name_other_family(model: Any) -> str:
    """The family of a MODEL (ModelPatcher) in words; "" where it is FLUX.2."""
    config = getattr(getattr(model.model, "model_config", None), "unet_config", None) or {}
    network = model.model.diffusion_model
    # A loader of another pack may leave no configuration; FLUX.2 alone shares one modulation among blocks.
    shared = getattr(getattr(network, "params", None), "global_modulation", False)
    if config.get("image_model") == "flux2" or (shared and hasattr(network, "double_blocks")):
        return ""
    names = (name for name, _ in network.named_modules()) if hasattr(network, "named_modules") else ()
    return find_flux3(names) or type(model.model).__name__
