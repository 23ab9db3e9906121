"""What the loader's pickers offer and prefer, judged by file names alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..base.flux2 import FAMILIES, KLEIN_4B
from ..base.sentences import Sentence, say

NANO = "klein-nano (built in)"
AUTOMATIC = "automatic"
WEIGHT_DTYPES = ("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2")
DEVICES = ("default", "cpu")

_MODEL = (r"klein.*base.*4b|klein.*4b.*base|base.*klein.*4b", r"klein.*4b|4b.*klein")
_ENCODER = {family.encoder_width: family.encoder_patterns for family in FAMILIES}
_VAE = (r"flux[-_. ]?2.*vae|vae.*flux[-_. ]?2", r"full_encoder_small_decoder", r"taef2")


def by_likeness(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Names ordered by the first pattern they match, then as given; names that match none come last."""
    names = list(names)

    def rank(name: str) -> int:
        stem = name.replace("\\", "/").rsplit("/", 1)[-1].lower()
        found = (index for index, pattern in enumerate(patterns) if re.search(pattern, stem))
        return next(found, len(patterns))

    return sorted(names, key=rank)


def _preferred(names: Iterable[str], patterns: Sequence[str], otherwise: str) -> str:
    first = next(iter(by_likeness(names, patterns)), otherwise)
    return first if any(re.search(pattern, first.lower()) for pattern in patterns) else otherwise


def default_model(names: Iterable[str]) -> str:
    """The first klein base 4b, else the first klein 4b, else klein-nano."""
    return _preferred([name for name in names if name != NANO], _MODEL, NANO)


def default_text_encoder(names: Iterable[str]) -> str:
    return _preferred(names, KLEIN_4B.encoder_patterns, AUTOMATIC)


def default_vae(names: Iterable[str]) -> str:
    return _preferred(names, _VAE, AUTOMATIC)


def models_to_try(names: Iterable[str]) -> list[str]:
    """Diffusion models in the order in which the user's own are looked for: Base of 4B first."""
    return by_likeness(names, _MODEL)


def text_encoders_to_try(names: Iterable[str], width: int) -> list[str]:
    """Encoder files in the order in which "automatic" looks into them, for an encoder of this width."""
    return by_likeness(names, _ENCODER.get(width, KLEIN_4B.encoder_patterns))


def vaes_to_try(names: Iterable[str]) -> list[str]:
    return by_likeness(names, _VAE)


def is_gguf(name: str) -> bool:
    return name.lower().endswith(".gguf")


def gguf_quantisation(name: str) -> str:
    """ "GGUF Q4_K_M" from a file name that says so."""
    match = re.search(r"(?i)(?<![a-z0-9])(i?q\d[a-z0-9_]*|bf16|f16|f32)(?=[.-])", name)
    return f"GGUF {match.group(1).upper()}" if match else "GGUF"


@dataclass(frozen=True)
class LoaderRequest:
    """What the user picked in the Klein Loader; names are relative to ComfyUI's model folders."""

    diffusion_model: str
    weight_dtype: str = "default"
    text_encoder: str = AUTOMATIC
    text_encoder_device: str = "default"
    vae: str = AUTOMATIC
    variant: str = "auto"


def describe_unused(request: LoaderRequest) -> Sentence:
    """A sentence where something was picked that klein-nano does not use; "" otherwise."""
    left = LoaderRequest(NANO)
    picked = [
        f"{name} '{getattr(request, name)}'"
        for name in ("text_encoder", "vae", "weight_dtype", "text_encoder_device", "variant")
        if getattr(request, name) != getattr(left, name)
    ]
    if not picked:
        return Sentence("")
    names = ", ".join(picked)
    return say(
        "Not used: %1. klein-nano brings all it needs; pick another diffusion_model to use them.", names
    )
