"""Do the things on the wires fit Klein? Each wrong one gets its own sentence before any time is spent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..base.errors import InputError
from ..base.flux2 import CELL, LATENT_CHANNELS
from ..base.sentences import say
from ..model.pairing import describe_width


def check_conditioning(name: str, conditioning: Any, expected_width: int | None) -> None:
    """`conditioning` is ComfyUI's list of `[tensor [B, tokens, width], dict]`; None skips the width."""
    if not conditioning:
        raise InputError(say("%1 is empty: connect Klein Prompt's %1 output, or a CLIP Text Encode.", name))
    for tensor, _ in conditioning:
        width = tensor.shape[-1]
        if expected_width is not None and width != expected_width:
            raise InputError(
                say(
                    "%1 comes from the wrong text encoder (%2). Connect the clip of "
                    "the Klein Loader that loads model, which reads %3.",
                    name,
                    describe_width(width),
                    describe_width(expected_width),
                )
            )
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(
                say(
                    "%1 holds values that are not numbers (NaN): look at the node that made it, or choose "
                    "another precision for the text encoder.",
                    name,
                )
            )


def check_references(name: str, conditioning: Any) -> None:
    """The reference latents in a conditioning: the model joins them to the picture's own latent, so each must
    be `[B, 128, h, w]`."""
    for number, latent in _list_references(conditioning):
        shape = list(getattr(latent, "shape", ()))
        whole = not getattr(latent, "is_nested", False)
        if whole and len(shape) == 4 and shape[1] == LATENT_CHANNELS and 0 not in shape:
            if bool(torch.isfinite(latent).all()):
                continue
            problem = say("holds values that are not numbers (NaN)")
        elif not whole or len(shape) != 4:
            problem = say("has the shape %1, which is no still picture's", shape)
        elif 0 in shape:
            problem = say("is empty: its shape is %1", shape)
        else:
            problem = say("has %1 channels, but FLUX.2 [klein] works with %2", shape[1], LATENT_CHANNELS)
        raise InputError(
            say(
                "Reference latent %1 in %2 %3. Encode the image with the vae of Klein Loader "
                "(flux2-vae.safetensors), or connect it to Klein References.",
                number,
                name,
                problem,
            )
        )


def _list_references(conditioning: Any) -> Iterator[tuple[int, Any]]:
    for _, options in conditioning or ():
        latents = options.get("reference_latents")
        yield from enumerate(latents if isinstance(latents, (list, tuple)) else (), 1)


def check_areas(name: str, conditioning: Any, size: tuple[int, int]) -> None:
    """Areas of a conditioning must lie on the picture of (width, height) pixels."""
    for left, top, _, _ in list_areas(conditioning, size):
        if left >= size[0] or top >= size[1]:
            raise InputError(
                say(
                    "An area in %1 begins at %2,%3 and so lies outside of the picture of %4x%5 pixels: "
                    "ComfyUI counts areas in cells of 8 pixels, FLUX.2 [klein] has cells of 16. "
                    "Use ConditioningSetAreaPercentage, or set half of x, y, width and height.",
                    name,
                    left,
                    top,
                    *size,
                )
            )


def list_areas(conditioning: Any, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """(left, top, width, height) in pixels of what ConditioningSetArea set, as the model sees it on a picture
    of (width, height), at whose edges it is cut off."""
    areas = []
    for _, options in conditioning or ():
        area = options.get("area")
        if area is None or len(area) != 4 or area[0] == "percentage":
            continue
        height, width, top, left = (int(side) * CELL for side in area)
        areas.append((left, top, min(width, size[0] - left), min(height, size[1] - top)))
    return areas


def check_vae(vae: Any) -> None:
    """A FLUX.2 VAE has 128 channels and flat pictures; anything else would fail after all the sampling."""
    if vae is None:
        raise InputError(
            say("vae is empty: the loader found no VAE in its file. Load flux2-vae.safetensors.")
        )
    channels = getattr(vae, "latent_channels", LATENT_CHANNELS)
    dimensions = getattr(vae, "latent_dim", 2)
    if channels != LATENT_CHANNELS or dimensions != 2:
        kind = say("%1 latent channels", channels) if dimensions == 2 else say("video latents")
        raise InputError(
            say(
                "vae works with %1, but FLUX.2 [klein] needs the FLUX.2 VAE with %2: "
                "load flux2-vae.safetensors (the FLUX.1 VAE, ae.safetensors, does not fit).",
                kind,
                LATENT_CHANNELS,
            )
        )


def check_one_source(latent: Any, image: Any) -> None:
    if latent is not None and image is not None:
        raise InputError(
            say("latent and image are both connected, but a run starts from one picture: unplug one.")
        )


def check_latent(samples: Any) -> None:
    """LATENT samples `[B, 128, H/16, W/16]`."""
    if getattr(samples, "is_nested", False) or samples.ndim != 4:
        raise InputError(say("latent holds video or several media; Klein Sampler works on still pictures."))
    if samples.shape[1] != LATENT_CHANNELS:
        raise InputError(
            say(
                "latent has %1 channels, but FLUX.2 [klein] works with %2: "
                "encode the picture with the FLUX.2 VAE, or start from Empty Flux 2 Latent.",
                samples.shape[1],
                LATENT_CHANNELS,
            )
        )
    if 0 in samples.shape:
        raise InputError(say("latent is empty: its shape is %1.", list(samples.shape)))
    if not bool(torch.isfinite(samples).all()):
        raise InputError(
            say(
                "latent holds values that are not numbers (NaN or infinity): "
                "look at the node that made it. A VAE in fp16 is a common cause; try its fp32 precision."
            )
        )


def check_encoded(samples: Tensor, width: int, height: int) -> None:
    """What the VAE made of a `width` x `height` picture."""
    if tuple(samples.shape[1:]) != (LATENT_CHANNELS, height // 16, width // 16):
        raise InputError(
            say(
                "vae turned a %1x%2 picture into a latent of shape %3, but "
                "FLUX.2 needs [%4, %5, %6]: load flux2-vae.safetensors.",
                width,
                height,
                list(samples.shape[1:]),
                LATENT_CHANNELS,
                height // 16,
                width // 16,
            )
        )
