"""One picture to be made, whatever dialect asked for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Drawing:
    """What a graph is made of. Everything was checked by the dialect that built it.

    width, height: of the picture asked for. canvas: (width, height) at which it is drawn; where that is
    another size, the picture is scaled to cover the asked one and cut evenly. model: file for Klein Loader.
    variant: for it, too. level, acceleration: Klein Sampler's choice, or the widgets of Klein Acceleration.
    loras: rows of Klein LoRA Stack. references: names in the store of pictures. faces: widgets of Klein Face
    Settings. detector: for Klein Face Refiner. mask: in the store, too; the first reference is then painted
    anew where the mask is transparent, and the rest of it stays. stand_in: klein-nano draws in place of the
    model asked for.
    """

    prompt: str
    negative: str
    width: int
    height: int
    canvas: tuple[int, int]
    steps: int
    guidance: float
    seed: int
    model: str
    variant: str = "auto"
    scheduler: str = "Default"
    level: str = "none"
    acceleration: Mapping[str, Any] | None = None
    loras: str = ""
    references: tuple[str, ...] = ()
    faces: Mapping[str, Any] | None = None
    detector: str = ""
    mask: str = ""
    stand_in: bool = False

    def with_seed(self, seed: int) -> Drawing:
        return replace(self, seed=seed)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Drawing:
        values = json.loads(text)
        values["canvas"] = tuple(values["canvas"])
        values["references"] = tuple(values["references"])
        return cls(**values)
