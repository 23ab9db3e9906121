"""References to latents and onto conditionings, through ComfyUI's own VAE and conditioning key."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from ..base import seams
from ..base.errors import InputError
from ..base.flux2 import CELL, LATENT_CHANNELS
from ..base.references import Reference, References
from ..base.sentences import say
from .latents import LatentCache

comfy = seams.modules("comfy.model_management", "comfy.utils")
node_helpers = seams.find("node_helpers")

logger = logging.getLogger("kleinod.references")

CACHE = "kleinod_reference_latents"


def latents_of(vae: Any, references: References) -> list[Tensor]:
    """One latent `[1, 128, H/16, W/16]` for each reference, in order: what VAE Encode makes of each picture.

    A picture is encoded once for a VAE: its latent stays with the VAE while that is in use. Where memory runs
    out, `VAE.encode` itself goes on in tiles. Raises ValueError for another model's VAE.
    """
    cache = _cache_of(vae)
    progress = comfy.utils.ProgressBar(len(references))
    latents = []
    for number, item in enumerate(references.items, start=1):
        comfy.model_management.throw_exception_if_processing_interrupted()
        latent = cache.get(item.digest)
        if latent is None:
            latent = _encode(vae, item, number)
            cache.put(item.digest, latent)
        latents.append(latent)
        progress.update(1)
    return latents


def add_references(conditioning: list, latents: list[Tensor], control: Any = None) -> list:
    """The conditioning with the latents behind those it already has, as one Reference Latent node each does.

    Klein numbers references by their order: the first is "image 1" of the prompt. control: what weighs them
    (`control.control_references`); the positive and the negative prompt must have the same, or they would not
    run in one batch.
    """
    values = {"reference_latents": list(latents)}
    made = node_helpers.conditioning_set_values(conditioning, values, append=True)
    return made if control is None else node_helpers.conditioning_set_values(made, {"control": control})


def _cache_of(vae: Any) -> LatentCache:
    if vae is None:
        raise InputError(
            say(
                "references is connected, but vae is not: connect the vae of Klein Loader, which turns the "
                "images into what the model reads."
            )
        )
    cache = vae.patcher.get_attachment(CACHE)
    if cache is None:
        cache = LatentCache()
        vae.patcher.set_attachments(CACHE, cache)
    return cache


def _encode(vae: Any, item: Reference, number: int) -> Tensor:
    latent = vae.encode(item.image)
    width, height = item.size
    expected = (1, LATENT_CHANNELS, height // CELL, width // CELL)
    if tuple(latent.shape) != expected:
        raise InputError(
            say(
                "vae turned image %1 (%2x%3) into a latent of shape %4, but "
                "FLUX.2 [klein] needs %5: connect the vae of Klein Loader, or load "
                "flux2-vae.safetensors.",
                number,
                width,
                height,
                list(latent.shape),
                list(expected),
            )
        )
    logger.debug("Encoded reference %d, %dx%d.", number, width, height)
    return latent
