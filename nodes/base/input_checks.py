"""What came in through the sockets: a value of another kind gets a sentence that names the input.

ComfyUI compares the types of linked sockets, but neither what a socket of any type hands on (switches,
reroutes and loops of other packs) nor what an API prompt writes in a socket's place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .errors import InputError
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
    "MODEL": ("a MODEL", _has("clone", "get_model_object", "model_options"), "Klein Loader"),
    "CLIP": ("a CLIP", _has("tokenize", "encode_from_tokens_scheduled"), "Klein Loader"),
    "VAE": ("a VAE", _has("encode", "decode"), "Klein Loader"),
    "CONDITIONING": ("CONDITIONING", _is_conditioning, "Klein Prompt"),
    "LATENT": ("a LATENT", _is_latent, "Klein Sampler or VAE Encode"),
    "IMAGE": ("an IMAGE", lambda value: isinstance(value, Tensor), "Load Image"),
    "MASK": ("a MASK", lambda value: isinstance(value, Tensor), "Load Image"),
    "KLEINOD_ACCELERATION": ("an acceleration", lambda v: isinstance(v, Acceleration), "Klein Acceleration"),
    "KLEINOD_REFERENCES": ("references", lambda v: isinstance(v, References), "Klein References"),
    "KLEINOD_LORAS": ("LoRA rows", lambda v: isinstance(v, Loras), "Klein LoRA Stack"),
    "LORA_STACK": ("a LORA_STACK", lambda v: isinstance(v, (list, tuple)), "a LoRA stacker"),
    "KLEINOD_FACE_REFINEMENT": (
        "face settings", lambda v: isinstance(v, FaceRefinement), "Klein Face Settings"
    ),
    "KLEINOD_RUNWARE_OPTIONS": (
        "Runware options", _has("output_type", "price_check"), "Klein Runware Options"
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
                raise InputError(f"{name} is empty: connect {said}, for example from {source}.")
        elif not fits(value):
            raise InputError(f"{name} is {_name(value)}, not {said}: connect one, for example from {source}.")


def _name(value: Any) -> str:
    if isinstance(value, str):
        words = value if len(value) <= _SHOWN else value[:_SHOWN] + "..."
        return f"the text {words!r}"
    if isinstance(value, (bool, int, float)):
        return f"the value {value!r}"[:_SHOWN]
    return f"a value of the kind {type(value).__name__}"
