"""What came in through the sockets: a value of another kind gets a sentence that names the input.

ComfyUI compares the types of linked sockets, but neither what a socket of any type hands on (switches,
reroutes and loops of other packs) nor what an API prompt writes in a socket's place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .errors import InputError
from .sentences import Sentence, say
from .values import Acceleration, FaceRefinement, Loras, References

_SHOWN = 40  # characters of a wrong value that are repeated


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda value: all(hasattr(value, name) for name in names)


def _is_conditioning(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[1], dict) for entry in value
    )


def _is_latent(value: Any) -> bool:
    samples = value.get("samples") if isinstance(value, dict) else None
    return hasattr(samples, "shape") or getattr(samples, "is_nested", False)


# Core's types by what the nodes use of them: other packs bring models and encoders of their own classes.
_KINDS: dict[str, tuple[str, Callable[[Any], bool], str]] = {
    "MODEL": (say("a MODEL"), _has("clone", "get_model_object", "model_options"), "Klein Loader"),
    "CLIP": (say("a CLIP"), _has("tokenize", "encode_from_tokens_scheduled"), "Klein Loader"),
    "VAE": (say("a VAE"), _has("encode", "decode"), "Klein Loader"),
    "CONDITIONING": ("CONDITIONING", _is_conditioning, "Klein Prompt"),
    "LATENT": (say("a LATENT"), _is_latent, say("Klein Sampler or VAE Encode")),
    "IMAGE": (say("an IMAGE"), lambda value: isinstance(value, Tensor), "Load Image"),
    "MASK": (say("a MASK"), lambda value: isinstance(value, Tensor), "Load Image"),
    "KLEINOD_ACCELERATION": (
        say("an acceleration"), lambda v: isinstance(v, Acceleration), "Klein Acceleration"
    ),
    "KLEINOD_REFERENCES": (say("references"), lambda v: isinstance(v, References), "Klein References"),
    "KLEINOD_LORAS": (say("LoRA rows"), lambda v: isinstance(v, Loras), "Klein LoRA Stack"),
    "LORA_STACK": ("LORA_STACK", lambda v: isinstance(v, (list, tuple)), say("a LoRA stacker")),
    "KLEINOD_FACE_REFINEMENT": (
        say("face settings"), lambda v: isinstance(v, FaceRefinement), "Klein Face Settings"
    ),
    "KLEINOD_RUNWARE_OPTIONS": (
        say("Runware options"), _has("output_type", "price_check"), "Klein Runware Options"
    ),
}  # fmt: skip
# An empty VAE, CLIP or CONDITIONING has a sentence of its own, nearer to its cause.
_NEVER_EMPTY = ("MODEL", "IMAGE", "LATENT")


def check_inputs(sockets: dict[str, tuple[str, bool]], values: dict[str, Any]) -> None:
    """ValueError for the first value that is none of its socket.

    sockets: input id to its type as ComfyUI writes it, and whether it must be connected.
    """
    for name, (kind, required) in sockets.items():
        if kind not in _KINDS or name not in values:
            continue
        said, fits, source = _KINDS[kind]
        value = values[name]
        if value is None:
            if required and kind in _NEVER_EMPTY:
                raise InputError(say("%1 is empty: connect %2, for example from %3.", name, said, source))
        elif not fits(value):
            raise InputError(
                say("%1 is %2, not %3: connect one, for example from %4.", name, _name(value), said, source)
            )


def _name(value: Any) -> Sentence:
    if isinstance(value, str):
        words = value if len(value) <= _SHOWN else value[:_SHOWN] + "..."
        return say("the text %1", repr(words))
    if isinstance(value, (bool, int, float)):
        return say("the value %1", repr(value)[:_SHOWN])
    return say("a value of the kind %1", type(value).__name__)
