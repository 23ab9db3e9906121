"""Model names of the three dialects, and the files on this machine that they mean.

A name stands for a family and a variant of FLUX.2 [klein]; a file is recognised by its name, as the loader's
pickers do. The owner may name a file for any of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..base.flux2 import CELL, MIN_SIZE
from ..model.choices import NANO
from ..model.facts import decide_variant
from .messages import Refusal


@dataclass(frozen=True)
class Kind:
    """What a name stands for. file: what to download where it is missing."""

    family: str
    variant: str
    cached: bool = False

    @property
    def file(self) -> str:
        base = "base-" if self.variant == "base" else ""
        return f"flux-2-klein-{base}{self.family}{'-kv' if self.cached else ''}.safetensors"


_4B, _4B_BASE = Kind("4b", "distilled"), Kind("4b", "base")
_9B, _9B_BASE, _9B_KV = Kind("9b", "distilled"), Kind("9b", "base"), Kind("9b", "distilled", cached=True)
RUNWARE_MODELS = {
    "runware:400@2": _9B,
    "runware:400@3": _9B_BASE,
    "runware:400@4": _4B,
    "runware:400@5": _4B_BASE,
    "runware:400@6": _9B_KV,
}
BFL_MODELS = {"flux-2-klein-4b": _4B, "flux-2-klein-9b": _9B, "flux-2-klein-9b-preview": _9B}
OPENAI_MODELS = {
    "flux-2-klein-4b": _4B,
    "flux-2-klein-base-4b": _4B_BASE,
    "flux-2-klein-9b": _9B,
    "flux-2-klein-base-9b": _9B_BASE,
    "flux-2-klein-9b-kv": _9B_KV,
}
# OpenAI's own names, which programs have built in, mean the first of these that is there.
OPENAI_OWN = (
    "gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5", "chatgpt-image-latest", "dall-e-2", "dall-e-3",
)  # fmt: skip
DEFAULT_KIND = _4B
_PREFERRED = (_4B, _4B_BASE, _9B, _9B_BASE, _9B_KV)


@dataclass(frozen=True)
class Model:
    """A file to draw with. name: as it was asked for. steps, guidance: what suits it."""

    name: str
    file: str
    variant: str
    steps: int
    guidance: float
    stand_in: bool = False

    def find_canvas(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) at which a picture of this size is drawn. klein-nano has a size of its own: 128
        pixels on the short side.
        """
        if self.stand_in:
            scale = MIN_SIZE / min(width, height)
            width, height = round(width * scale), round(height * scale)
            return max(MIN_SIZE, width // CELL * CELL), max(MIN_SIZE, height // CELL * CELL)
        return tuple(max(MIN_SIZE, -(-side // CELL) * CELL) for side in (width, height))  # type: ignore[return-value]


def kind_of(file: str) -> Kind | None:
    """What a file's name says it is, or None where it is no Klein's."""
    stem = file.replace("\\", "/").rsplit("/", 1)[-1].lower()
    family = re.search(r"(?<![0-9])([49])b(?![a-z0-9])", stem)
    if "klein" not in stem or family is None:
        return None
    cached = re.search(r"[-_ ]kv(?![a-z])", stem) is not None
    return Kind(f"{family[1]}b", decide_variant(file_name=file)[0], cached)


def find_model(
    name: str, kinds: Sequence[Kind], files: Iterable[str], own: Mapping[str, str], stand_in: bool
) -> Model:
    """The file for a name that stands for one of `kinds`, the first that is there. own: the owner's choices
    by name. stand_in: whether klein-nano may draw where there is no Klein at all. Raises Refusal.
    """
    files = [file for file in files if file != NANO]
    there = {file: kind for file in files if (kind := kind_of(file)) is not None}
    if name in own and (own[name] in files or own[name] == NANO):
        if own[name] == NANO:
            return Model(name, NANO, "auto", 28, 4.0)
        return _make(name, own[name], kinds[0])
    for kind in kinds:
        for file, found in there.items():
            if found == kind:
                return _make(name, file, kind)
    if stand_in and not there:
        return Model(name, NANO, "auto", 28, 4.0, stand_in=True)
    raise Refusal(
        400, "unknownModel",
        f"The model '{name}' is not on this machine: put {kinds[0].file} into ComfyUI's "
        "models/diffusion_models, or name a file for it in the settings of the API.",
        "model",
    )  # fmt: skip


def _make(name: str, file: str, kind: Kind) -> Model:
    distilled = kind.variant == "distilled"
    return Model(name, file, kind.variant, 4 if distilled else 28, 1.0 if distilled else 4.0)


def list_preferred() -> tuple[Kind, ...]:
    return _PREFERRED
